"""What the command line prints of a plan."""

from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich.table import Table

from workers.contract.problems import counted
from workers.planning.fit import USABLE, Remedy
from workers.planning.plan import PhasePlan, Plan

from .tables import screen


def print_plan(plan: Plan) -> None:
    """Print a plan as tables, with a line of words before each."""
    copies = f", {plan.replicate} copies" if plan.replicate > 1 else ""
    checkpointing = ", activation checkpointing" if plan.activation_checkpointing else ""
    typer.echo(
        f"{plan.name}: {plan.parameters:,} parameters, {plan.vocab_size:,} entries in the vocabulary; "
        f"{counted(plan.workers, 'worker')}, ZeRO stage {plan.stage}{copies}, {plan.compute}{checkpointing}"
    )
    _show("Steps", phases_table(plan))
    _show("Memory of a worker at the fullest moment, and what it sends in a step, by ZeRO stage", stages_table(plan))
    for number, phase in enumerate(plan.phases):
        if phase.exchanges:
            _show(f"What a worker sends in a step of phases[{number}] at stage {plan.stage}", exchanges_table(phase))
    typer.echo("")
    typer.echo(
        f"A checkpoint takes {in_units(plan.checkpoint_bytes)}; at most {in_units(plan.checkpoints_bytes)} are on disk."
    )
    typer.echo(f"The batches divide over {_listed(plan.sizes)} workers; the job allows {_listed(plan.allowed)}.")
    for line in verdict(plan):
        typer.echo(line)


def phases_table(plan: Plan) -> Table:
    """Lay out the phases, one per row, and their sum."""
    table = _table("phase", "tokens a row", "batch", "micro-batch", "accumulated", "steps", "tokens", "epochs", "hours")
    for number, each in enumerate(plan.phases):
        sizes = (
            each.seq_len,
            each.global_batch_size,
            each.micro_batch_size,
            each.micro_batches,
            each.steps,
            each.tokens,
        )
        table.add_row(str(number), *(f"{size:,}" for size in sizes), _known(each.epochs), _known(each.hours))
    if len(plan.phases) > 1:
        steps = sum(each.steps for each in plan.phases)
        table.add_row("all", *[""] * 4, f"{steps:,}", f"{plan.tokens:,}", _known(plan.epochs), _known(plan.hours))
    return table


def stages_table(plan: Plan) -> Table:
    """Lay out memory and traffic at each ZeRO stage, the job's own marked."""
    sent = ["sends"] if len(plan.phases) == 1 else [f"sends, phases[{number}]" for number in range(len(plan.phases))]
    fits = [] if plan.memory_bytes is None else ["fits"]
    table = _table("stage", "weights", "gathered", "gradients", "moments", "activations", "total", *sent, *fits)
    for each in plan.stages:
        held = each.memory
        parts = (held.weights, held.gathered, held.gradients, held.moments, held.activations, each.memory_bytes)
        name = f"{each.stage} *" if each.stage == plan.stage else str(each.stage)
        does_fit = [] if each.fits is None else ["yes" if each.fits else "no"]
        table.add_row(name, *(in_units(size) for size in (*parts, *each.sent_bytes)), *does_fit)
    return table


def exchanges_table(phase: PhasePlan) -> Table:
    """Lay out the collectives of a step, a kind per row."""
    table = _table("collective", "of", "ranks", "calls", "sends")
    for each in phase.exchanges:
        calls = "-" if each.calls is None else f"{each.calls:,}"
        table.add_row(each.collective, each.of, f"{each.ranks:,}", calls, in_units(each.wire_bytes))
    return table


def verdict(plan: Plan) -> Iterable[str]:
    """Say whether the job fits, and what to do where it does not."""
    if plan.memory_bytes is None:
        return
    needed = max(each.memory_bytes for each in plan.phases)
    available = f"{in_units(USABLE * plan.memory_bytes)} are available ({USABLE:.0%} of {in_units(plan.memory_bytes)})"
    yield f"It {'fits' if plan.fits else 'does not fit'}: a worker's tensors take {in_units(needed)}, and {available}."
    if plan.fits:
        return
    if not plan.remedies:
        yield "No setting would make it fit: take a smaller model, shorter rows or a device with more memory."
    else:
        yield f"It would fit with {'this' if len(plan.remedies) == 1 else 'any one of these'}:"
    for each in plan.remedies:
        yield f"  {in_units(each.total_bytes)} with {_settings(each)}"


def in_units(size: float) -> str:
    """Write a number of bytes with three digits: `1.34 GB`, `512 B`."""
    for unit, of_unit in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= of_unit:
            number = size / of_unit
            return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"
    return f"{size:.0f} B"


def _settings(remedy: Remedy) -> str:
    return " ".join(f"--set {field}={_value(value)}" for field, value in remedy.settings.items())


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _known(number: float | None) -> str:
    return "-" if number is None else f"{number:,.2f}" if number < 100 else f"{number:,.0f}"


def _listed(sizes: Sequence[int]) -> str:
    shown = ", ".join(f"{size:,}" for size in sizes[:20])
    return shown if len(sizes) <= 20 else f"{shown} … {sizes[-1]:,}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name == "of" else "right")
    return table


def _show(title: str, table: Table) -> None:
    typer.echo(f"\n{title}")
    screen().print(table)
