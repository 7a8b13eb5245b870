"""What was measured, as JSON and as tables with the goals beside them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.card.traced import Line, Profile
from benchmarks.card.walk import Station
from benchmarks.tables import aligned

OURS, PLAIN = "bigbatch", "plain transformers"
OVER_PLAIN, OF_MATRIX = 1.4, 0.45
"""Goals: tokens a second beside plain transformers; of BERT-Large, useful arithmetic beside a matrix product."""


@dataclass(frozen=True)
class Row:
    """One contender on one model at one sequence length."""

    model: str
    seq_len: int
    micro_batch: int
    micro_batches: int
    name: str
    tokens_per_s: float
    """Real tokens, without padding."""
    useful_flops: float
    """A second."""
    matrix_flops: float
    """A second of a large matrix product in the same process."""
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Profiled:
    """A step of our training on one model at one sequence length."""

    model: str
    seq_len: int
    profile: Profile


@dataclass(frozen=True)
class Report:
    """One run of scripts/gpu-train."""

    machine: str
    stations: list[Station]
    rows: list[Row]
    profiles: list[Profiled]
    left_out: list[str]


def read(file: Path) -> tuple[list[Row], list[Profiled]]:
    """Return what benchmarks.card.measure has written so far; nothing where there is no file."""
    rows, profiles = list[Row](), list[Profiled]()
    for line in file.read_text().splitlines() if file.exists() else []:
        ((kind, content),) = json.loads(line).items()
        if kind == Row.__name__:
            rows.append(Row(**content))
        else:
            seen = content["profile"]
            lists = {name: tuple(Line(**each) for each in seen[name]) for name in ("waits", "copies", "longest")}
            profiles.append(Profiled(content["model"], content["seq_len"], Profile(**seen | lists)))
    return rows, profiles


def text(report: Report) -> str:
    """Return the whole report in Markdown."""
    parts = [report.machine, _walked(report.stations)]
    if report.rows:
        parts += ["## Speed\n\n" + _speed(report.rows), "## Goals\n\n" + _goals(report.rows)]
    parts += [_profiled(each) for each in report.profiles]
    parts += [f"* {reason}" for reason in report.left_out]
    return "\n\n".join(part for part in parts if part) + "\n"


def _walked(stations: list[Station]) -> str:
    lines = [[each.name, f"{each.seconds:.1f}", each.seen] for each in stations]
    return "## The path of a run\n\n" + aligned(["station", "s", "what was seen"], lines) if lines else ""


def _speed(rows: list[Row]) -> str:
    titles = [
        "model",
        "tokens a row",
        "rows",
        "contender",
        "real tokens/s",
        f"÷ {PLAIN}",
        "useful TFLOP/s",
        "of a matrix product",
        "peak GiB",
    ]
    plain = {(row.model, row.seq_len): row.tokens_per_s for row in rows if row.name == PLAIN}
    lines = [
        [
            row.model,
            str(row.seq_len),
            f"{row.micro_batches} x {row.micro_batch}",
            row.name,
            f"{row.tokens_per_s:,.0f}",
            f"{row.tokens_per_s / plain[row.model, row.seq_len]:.2f}" if (row.model, row.seq_len) in plain else "",
            f"{row.useful_flops / 1e12:.3g}",
            f"{row.useful_flops / row.matrix_flops:.1%}",
            "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**30:.1f}",
        ]
        for row in sorted(rows, key=lambda row: (row.model, row.seq_len))
    ]
    return aligned(titles, lines)


def _goals(rows: list[Row]) -> str:
    found = {(row.model, row.seq_len, row.name): row for row in rows}
    lines = [list(goal) for row in rows if row.name == OURS for goal in _of(row, found)]
    if not lines:
        return "None was measured."
    return aligned(["goal", "at least", "measured", "verdict"], lines)


def _of(ours: Row, rows: dict[tuple[str, int, str], Row]) -> Iterator[tuple[str, str, str, str]]:
    place = f"{ours.model}, {ours.seq_len} tokens"
    plain = rows.get((ours.model, ours.seq_len, PLAIN))
    if plain is not None:
        ratio = ours.tokens_per_s / plain.tokens_per_s
        yield f"{OURS} ÷ {PLAIN}, {place}", f"{OVER_PLAIN}", f"{ratio:.2f}", _verdict(ratio, OVER_PLAIN)
    if "large" in ours.model:
        share = ours.useful_flops / ours.matrix_flops
        goal = f"useful arithmetic ÷ a matrix product, {place}"
        yield goal, f"{OF_MATRIX:.0%}", f"{share:.0%}", _verdict(share, OF_MATRIX)


def _verdict(figure: float, goal: float) -> str:
    return "reached" if figure >= goal else f"missed by {1 - figure / goal:.0%}"


def _profiled(found: Profiled) -> str:
    seen = found.profile
    busy = "" if seen.gpu_busy_ms is None else f", the GPU worked in {seen.gpu_busy_ms:.1f} ms of it"
    title = f"## A step of {OURS}: {found.model}, {found.seq_len} tokens"
    slower = f"Mean of {seen.steps} steps under the profiler, which slows them down."
    parts = [title, f"{seen.step_ms:.1f} ms{busy}; {seen.launches:.0f} launches. {slower}"]
    for title, lines in (
        ("CUDA calls in which the host may wait", seen.waits),
        ("copies", seen.copies),
        ("longest kernels" if seen.gpu_busy_ms is not None else "longest operators", seen.longest),
    ):
        if lines:
            cells = [[line.name[:100].replace("|", "/"), f"{line.times:.1f}", f"{line.ms:.2f}"] for line in lines]
            parts.append(aligned([title, "a step", "ms a step"], cells))
    return "\n\n".join(parts)
