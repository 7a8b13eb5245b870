"""Which runs the comparison consists of, and in which order they are made."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from optim import untuned
from workers.contract.spec.phase import Scaled

FIRST_RATE = {"lamb": 2e-2, "adamw": 2e-3}
"""Where the search for a learning rate at the smallest batch begins."""

LARGEST_WARM_UP = 0.2
"""Share of the steps at the largest batch; the paper's, at its own largest batch."""

MOST_RATES = 6
"""A search tries no more."""


@dataclass(frozen=True)
class Run:
    """One training over the budget."""

    optimizer: str
    """`lamb` or `adamw`."""
    batch: int
    """Sequences a step."""
    lr: float
    warmup: float
    """Share of the steps."""
    seed: int


@dataclass(frozen=True)
class Plan:
    """What is compared."""

    batches: tuple[int, ...]
    """Ascending."""
    seeds: tuple[int, ...]
    """The searches use the first."""

    def by_the_rule(self, optimizer: str, base: float, batch: int, seed: int) -> Run:
        """Return the run at a batch whose rate follows from the rate `base` at the smallest batch."""
        lr = Scaled(base=base, at_batch=self.batches[0], rule="sqrt").at(batch)
        return Run(optimizer, batch, lr, LARGEST_WARM_UP * batch / self.batches[-1], seed)

    @staticmethod
    def as_in_the_paper(batch: int, seed: int) -> Run:
        """Return the run with the learning rate and the warm-up that the paper gives BERT at a batch."""
        return Run("lamb", batch, *untuned(batch), seed)


def next_run(plan: Plan, losses: Mapping[Run, float]) -> Run | None:
    """Return the first run that is wanted and not done; None where all are done.

    `losses` has the held-out loss of every run that is done, infinity where it diverged.
    """
    return next((run for run in _wanted(plan, losses) if run not in losses), None)


def _wanted(plan: Plan, losses: Mapping[Run, float]) -> Iterator[Run]:
    """Yield all runs in their order. Between two of them the first one's loss is looked up, so it must be known."""
    smallest, first, others = plan.batches[0], plan.seeds[0], plan.seeds[1:]
    for optimizer in ("lamb", "adamw"):
        yield from _search(plan.by_the_rule(optimizer, FIRST_RATE[optimizer], smallest, first), losses)
        base = best(losses, optimizer, smallest, first).lr
        yield from (plan.by_the_rule(optimizer, base, batch, first) for batch in plan.batches)
    for batch in plan.batches[1:]:
        base = best(losses, "adamw", smallest, first).lr
        yield from _search(plan.by_the_rule("adamw", base, batch, first), losses)
    for seed in others:
        yield from shown(plan, losses, seed)
    for seed in plan.seeds:
        yield from (plan.as_in_the_paper(batch, seed) for batch in plan.batches)


def shown(plan: Plan, losses: Mapping[Run, float], seed: int) -> Iterator[Run]:
    """Yield the runs of a seed that the comparison shows, once the searches are done."""
    smallest, first = plan.batches[0], plan.seeds[0]
    for batch in plan.batches:
        for optimizer in ("lamb", "adamw"):
            yield plan.by_the_rule(optimizer, best(losses, optimizer, smallest, first).lr, batch, seed)
        found = best(losses, "adamw", batch, first)
        yield Run("adamw", batch, found.lr, found.warmup, seed)


def best(losses: Mapping[Run, float], optimizer: str, batch: int, seed: int) -> Run:
    """Return the run with the least loss of one optimizer at one batch, the paper's own numbers left out."""
    runs = [run for run in losses if (run.optimizer, run.batch, run.seed) == (optimizer, batch, seed)]
    return min((run for run in runs if run != Plan.as_in_the_paper(batch, seed)), key=losses.__getitem__)


def _search(start: Run, losses: Mapping[Run, float]) -> Iterator[Run]:
    """Yield runs at doubled or halved rates, from `start` in the direction in which the loss falls, until it rises."""

    def at(power: int) -> Run:
        return Run(start.optimizer, start.batch, math.ldexp(start.lr, power), start.warmup, start.seed)

    yield at(0)
    yield at(1)
    way = 1 if losses[at(1)] < losses[at(0)] else -1
    power = 1 if way > 0 else 0
    for _ in range(MOST_RATES - 2):
        yield at(power + way)
        if not losses[at(power + way)] < losses[at(power)]:
            return
        power += way
