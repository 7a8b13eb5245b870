"""Seconds of steps, taken in turns, so that a machine whose speed drifts treats all alike."""

import time
from collections.abc import Callable, Sequence

import torch

Step = Callable[[], object]

WARM_UP = 2
"""Steps of each contender that are not counted."""

COPY_BYTES = 1 << 29
"""Read and written by the copy that tells what the machine's memory does."""


def seconds_of(step: Step, device: str = "cpu") -> float:
    """Return how long a step took, on a GPU from the first to the last kernel that it queues."""
    if device == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        first.record()
        step()
        last.record()
        torch.cuda.synchronize()
        return float(first.elapsed_time(last)) / 1e3
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def in_turns(
    steps: Sequence[Step], turns: int, device: str = "cpu", before: Callable[[], object] = lambda: None
) -> list[list[float]]:
    """Return the seconds of each step, a row for each of `steps` and a column for each counted turn.

    The order within a turn stays, so that nobody follows on himself and finds his own tensors in cache.
    """
    rows: list[list[float]] = [[] for _ in steps]
    for turn in range(WARM_UP + turns):
        for row, step in zip(rows, steps, strict=True):
            before()
            seconds = seconds_of(step, device)
            if turn >= WARM_UP:
                row.append(seconds)
    return rows


def copy_step(device: str = "cpu") -> Step:
    """Return a copy that reads and writes COPY_BYTES, which no cache holds."""
    source, target = (torch.ones(COPY_BYTES // 8, device=device) for _ in range(2))
    return lambda: target.copy_(source)
