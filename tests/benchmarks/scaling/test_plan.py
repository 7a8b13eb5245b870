import math
from collections.abc import Callable

import pytest

from benchmarks.scaling.plan import FIRST_RATE, MOST_RATES, Plan, Run, best, next_run, shown

PLAN = Plan((64, 256, 1024), (0, 1))
IN_THE_PAPER = {64: 2.2097e-4, 256: 4.4194e-4, 1024: 8.8388e-4}  # 5e-3 · sqrt(batch / 32768), worked out by hand


def made(plan: Plan, loss: Callable[[Run], float]) -> dict[Run, float]:
    """Make all runs, each with the loss that a function gives it; return them in their order."""
    losses = dict[Run, float]()
    while (run := next_run(plan, losses)) is not None:
        assert run not in losses
        losses[run] = loss(run)
    return losses


def valley(rates: dict[int, float]) -> Callable[[Run], float]:
    """The loss rises with the distance of the rate from the best rate at the batch."""
    return lambda run: abs(math.log2(run.lr / rates[run.batch]))


def rates(losses: dict[Run, float], optimizer: str, batch: int) -> list[float]:
    return [run.lr for run in losses if (run.optimizer, run.batch, run.seed) == (optimizer, batch, 0)]


@pytest.mark.parametrize(
    ("optimum", "tried"),
    [(1.0, [1, 2, 0.5]), (3.9, [1, 2, 4, 8]), (0.26, [1, 2, 0.5, 0.25, 0.125]), (1e9, [1, 2, 4, 8, 16, 32])],
)
def test_a_search_doubles_or_halves_the_rate_until_the_loss_rises(optimum: float, tried: list[float]) -> None:
    first = FIRST_RATE["lamb"]
    losses = made(Plan((64,), (0,)), valley({64: first * optimum}))
    lamb = [rate for rate in rates(losses, "lamb", 64) if rate > 1e-3]  # without the paper's
    assert lamb == [first * times for times in tried]
    assert len(lamb) <= MOST_RATES


def test_a_search_ends_where_every_run_diverges() -> None:
    losses = made(Plan((64,), (0,)), lambda _: math.inf)
    assert len(losses) == 7  # 1, 2 and a half of the first rate for both, and the paper's


def test_lamb_is_searched_at_the_smallest_batch_alone_and_grows_with_its_square_root() -> None:
    losses = made(PLAN, valley(dict.fromkeys(PLAN.batches, 0.04)))
    assert rates(losses, "lamb", 256) == [0.08, pytest.approx(IN_THE_PAPER[256], rel=1e-4)]
    assert rates(losses, "lamb", 1024) == [0.16, pytest.approx(IN_THE_PAPER[1024], rel=1e-4)]


def test_the_warm_up_grows_with_the_batch_to_a_fifth() -> None:
    losses = made(PLAN, valley(dict.fromkeys(PLAN.batches, 0.04)))
    assert {(run.batch, run.warmup) for run in losses if run.lr > 1e-3} == {(64, 0.0125), (256, 0.05), (1024, 0.2)}


def test_adamw_is_searched_at_every_batch_from_what_the_rule_says() -> None:
    optima = {64: 4e-3, 256: 32e-3, 1024: 16e-3}
    losses = made(PLAN, valley(optima))
    assert {batch: best(losses, "adamw", batch, 0).lr for batch in PLAN.batches} == optima
    assert rates(losses, "adamw", 256)[0] == 8e-3


def test_every_seed_has_the_runs_that_are_shown_and_the_paper_s_own() -> None:
    losses = made(PLAN, valley({64: 4e-3, 256: 32e-3, 1024: 16e-3}))
    for seed in PLAN.seeds:
        assert set(shown(PLAN, losses, seed)) <= losses.keys()
        paper = {batch: run.lr for batch in PLAN.batches for run in losses if run == PLAN.as_in_the_paper(batch, seed)}
        assert paper == pytest.approx(IN_THE_PAPER, rel=1e-4)
    assert {run.seed for run in losses} == {0, 1}


def test_runs_that_are_done_are_not_wanted_again() -> None:
    loss = valley({64: 4e-3, 256: 32e-3, 1024: 16e-3})
    losses = made(PLAN, loss)
    for number in range(len(losses)):
        known = dict(list(losses.items())[:number])
        assert next_run(PLAN, known) == list(losses)[number]
