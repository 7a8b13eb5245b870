"""What a step may cost, and whether a run reached it."""

from dataclasses import dataclass

from benchmarks.bert import count, shapes
from benchmarks.contenders import BASELINE, CLIPPED, OURS, PYTORCH_OPTIMIZER, TIMM_LAMB, TORCH_OPTIMIZER, WHOLE
from benchmarks.results import Report, Result
from benchmarks.tables import number

MODEL = "bert-base"
"""The goals are for its parameters; a run without it is held against the last model that it has."""

TEMPORARY_BYTES = 1024
"""For each tensor; what is less depends on the number of tensors and not on their size."""

LAUNCHES = 8


@dataclass(frozen=True)
class Goal:
    """One goal with one number of threads, the figure that a run has for it, and what bounds that."""

    text: str
    limit: float
    figure: float
    bound: str
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Return whether the goal is reached, or by how much it is missed."""
        reached = self.figure >= self.limit if self.at_least else self.figure <= self.limit
        return "reached" if reached else f"missed by {abs(self.figure / self.limit - 1):.0%}"


def goals(report: Report) -> list[Goal]:
    """Return the goals that a run has figures for."""
    models = [result.model for result in report.results]
    model = MODEL if MODEL in models else models[-1]
    rows = {(r.ranks, r.threads, r.name): r for r in report.results if r.model == model}
    return [
        goal
        for (ranks, threads, name), ours in rows.items()
        if name == OURS
        for goal in _goals(ours, {other: row for (*place, other), row in rows.items() if place == [ranks, threads]})
    ]


def _goals(ours: Result, rows: dict[str, Result]) -> list[Goal]:
    """Return the goals for one number of ranks and threads; `rows` has all contenders with these."""
    adamw, place = rows[BASELINE], f"{ours.model}, {number(ours.threads, 'thread')}"
    if ours.over_half is not None:
        bound = f"{BASELINE} reaches {adamw.over_half:.2f}"
        return [Goal(f"{ours.ranks} ranks ÷ their part of one rank's step, {place} each", 1.15, ours.over_half, bound)]
    moved = ours.moved_bytes / adamw.moved_bytes
    bound = f"moves {moved:.2f} times the bytes, at {ours.of_copy:.0%} of a copy's speed; AdamW at {adamw.of_copy:.0%}"
    if CLIPPED in rows:
        bound += f"; clipped, which Lamb does too, AdamW takes {rows[CLIPPED].over_adamw:.2f}"
    found = [Goal(f"{OURS} ÷ {BASELINE}, {place}", 1.4, ours.over_adamw, bound)]
    for other, limit in ((rows.get(TORCH_OPTIMIZER), 6), (rows.get(PYTORCH_OPTIMIZER), 5)):
        if other:  # both were taken in turns with the same baseline
            bytes_ = other.moved_bytes / ours.moved_bytes
            bound = f"moves {bytes_:.2f} times our bytes; it takes {other.over_adamw:.2f} of AdamW"
            times = other.over_adamw / ours.over_adamw
            found.append(Goal(f"{other.name} ÷ ours, {place}", limit, times, bound, at_least=True))
    whole, timm = rows.get(f"{WHOLE}, float32 sums"), rows.get(TIMM_LAMB)
    if whole and timm:
        bound = f"moves {whole.moved_bytes / timm.moved_bytes:.2f} times its bytes"
        found.append(Goal(f"{whole.name} ÷ {timm.name}, {place}", 1, whole.over_adamw / timm.over_adamw, bound))
    if ours.temporary_bytes is not None:
        size = ours.temporary_bytes * count(ours.model) / len(shapes(ours.model))
        found.append(Goal(f"temporaries, bytes a tensor, {place}", TEMPORARY_BYTES, size, "the number of tensors"))
    if ours.launches is not None:
        found.append(Goal(f"kernels launched a step, {ours.model}", LAUNCHES, ours.launches, ""))
    return found
