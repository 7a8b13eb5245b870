import time

import pytest
import torch

from workers.training.reporting.clock import NOTHING, Mark, StepClock

CPU = torch.device("cpu")


def step(clock: StepClock, *, micro_batches: int = 2) -> None:
    """Spend time in each part of a step: 10 ms waiting for data, 20 alone, 40 with the others, 80 in the optimizer."""
    clock.restart()
    time.sleep(0.01)
    clock.mark(Mark.BEGIN)
    for mark in (Mark.GATHERED, Mark.LAST)[:: 1 if micro_batches > 1 else -1]:
        clock.mark(mark)
        time.sleep(0.02)
    time.sleep(0.02)
    clock.mark(Mark.COMPUTED)
    time.sleep(0.08)
    clock.mark(Mark.END)


def test_each_part_of_a_step_has_its_time_and_none_is_told_twice() -> None:
    clock = StepClock(CPU, 1)
    step(clock)
    step(clock)
    times = clock.take()
    assert times.data_s >= 0.01
    assert times.alone_s >= 0.02
    assert times.compute_s >= times.alone_s + 0.04
    assert times.optimizer_s >= 0.08
    assert times.own_s == times.data_s + times.alone_s
    assert clock.take() == NOTHING


def test_a_step_that_has_not_ended_is_told_later() -> None:
    clock = StepClock(CPU, 1)
    clock.mark(Mark.BEGIN)
    assert clock.take() == NOTHING
    for mark in (Mark.GATHERED, Mark.LAST, Mark.COMPUTED, Mark.END):
        clock.mark(mark)
    assert clock.take().compute_s > 0


@pytest.mark.parametrize(("stage", "micro_batches"), [(2, 2), (3, 2), (1, 1), (0, 1)])
def test_a_rank_that_exchanges_something_after_every_micro_batch_has_no_time_of_its_own(
    stage: int, micro_batches: int
) -> None:
    clock = StepClock(CPU, stage)
    step(clock, micro_batches=micro_batches)
    times = clock.take()
    assert times.alone_s == 0
    assert times.compute_s > 0
