"""Measured rows as tables that are read on a terminal and rendered as Markdown alike."""

from collections.abc import Callable, Sequence
from itertools import groupby

from benchmarks.bert import count, shapes
from benchmarks.contenders import CONTENDERS
from benchmarks.results import Report, Result

COLUMNS: dict[str, Callable[[Result], str | None]] = {
    "optimizer": lambda r: r.name,
    "ms": lambda r: f"{r.step_s * 1e3:.2f}",
    "fastest to slowest": lambda r: f"{r.fastest_s * 1e3:.2f} to {r.slowest_s * 1e3:.2f}",
    "÷ AdamW": lambda r: f"{r.over_adamw:.2f}",
    "÷ its part of one rank's": lambda r: None if r.over_half is None else f"{r.over_half:.2f}",
    "collectives": lambda r: None if r.collectives is None else str(r.collectives),
    "moved B": lambda r: f"{r.moved_bytes:.0f}",
    "of copy": lambda r: f"{r.of_copy:.0%}",
    "state B": lambda r: f"{r.state_bytes:.2f}",
    "temporary B": lambda r: None if r.temporary_bytes is None else f"{r.temporary_bytes:.4f}",
    "kernels ms": lambda r: None if r.kernels_s is None else f"{r.kernels_s * 1e3:.3f}",
    "launches": lambda r: None if r.launches is None else str(r.launches),
}
"""Of each row; a column that has nothing in any row of a table is left out of it."""


def tables(report: Report) -> str:
    """Return the machine, a table for each model, ranks and threads, and what is missing."""
    parts = [machine_text(report)]
    for (model, ranks, threads), group in groupby(report.results, key=lambda r: (r.model, r.ranks, r.threads)):
        rows = sorted(group, key=lambda r: list(CONTENDERS).index(r.name))
        title = f"{model}, {number(ranks, 'rank')} of {number(threads, 'thread')}"
        size = f"{len(shapes(model))} tensors, {count(model):,} parameters"
        parts.append(f"### {title}\n\n{size}; a copy moves {rows[0].copy_bytes_s / 1e9:.1f} GB/s.\n\n{table(rows)}")
    parts += [f"* {reason}" for reason in report.left_out]
    return "\n\n".join(parts)


def table(rows: list[Result]) -> str:
    """Return a table, the first column aligned to the left and numbers to the right."""
    columns = {title: [cell(row) or "" for row in rows] for title, cell in COLUMNS.items()}
    columns = {title: cells for title, cells in columns.items() if any(cells)}
    return aligned(list(columns), list(zip(*columns.values(), strict=True)))


def aligned(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns stand under each other."""
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]

    def text(cells: Sequence[str]) -> str:
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return f"| {' | '.join([cells[0].ljust(widths[0]), *rest])} |"

    return "\n".join(text(cells) for cells in [titles, rule, *lines])


def machine_text(report: Report) -> str:
    """Return where and with what it was measured."""
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    place = f"{machine.gpu}; " if machine.gpu else ""
    return (
        f"{place}{machine.processor}; {number(machine.cores, 'core')}, {machine.memory_gib} GiB of memory.\n"
        f"{versions}; our kernel: {machine.kernel}.\n"
        f"{machine.turns} turns beside {machine.warm_up} not counted."
    )


def number(count: int, what: str) -> str:
    """Return "1 rank", "2 ranks" and the like."""
    return f"{count} {what}{'' if count == 1 else 's'}"
