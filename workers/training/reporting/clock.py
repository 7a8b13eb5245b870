"""Where the time of a step goes, and which rank is slow, without waiting for the device."""

import time
from enum import Enum, auto
from typing import NamedTuple

import torch


class Mark(Enum):
    """A point of a step."""

    BEGIN = auto()
    """The batches are there."""
    GATHERED = auto()
    """The first forward pass is done, and with it the gathering of weights at ZeRO 1, in which ranks wait."""
    LAST = auto()
    """The last micro-batch begins. In its backward pass ranks wait for each other."""
    COMPUTED = auto()
    """The gradients are there."""
    END = auto()
    """The optimizer has changed the weights."""


class Times(NamedTuple):
    """Means over some steps of one rank, in seconds."""

    data_s: float
    """Waiting for the batches."""
    compute_s: float
    """Forward and backward, with the communication in them."""
    optimizer_s: float
    alone_s: float
    """Of it, computing between GATHERED and LAST; 0 where ranks exchange something after every micro-batch, or where
    there is only one."""

    @property
    def own_s(self) -> float:
        """What the rank takes without the others."""
        return self.data_s + self.alone_s


NOTHING = Times(0.0, 0.0, 0.0, 0.0)


class StepClock:
    """Takes the time of each step: on a GPU by events in its stream, which are read once they have happened."""

    def __init__(self, device: torch.device, stage: int) -> None:
        self._on_gpu = device.type == "cuda"
        self._is_alone_between = stage <= 1
        self._marks: dict[Mark, float | torch.cuda.Event] = {}
        self._steps: list[tuple[float, dict[Mark, float | torch.cuda.Event]]] = []
        self._since = time.perf_counter()

    def restart(self) -> None:
        """Wait for the next batches from now on."""
        self._since = time.perf_counter()

    def mark(self, mark: Mark) -> None:
        """Note that the step has come to this point."""
        if mark is Mark.BEGIN:
            self._marks = {}
            self._steps.append((time.perf_counter() - self._since, self._marks))
        if not self._on_gpu:
            self._marks[mark] = time.perf_counter()
            return
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call] # not annotated in torch
        event.record()
        self._marks[mark] = event

    def take(self) -> Times:
        """Return the means over the steps that are over on the device, and forget these."""
        over = [step for step in self._steps if _is_over(step[1].get(Mark.END))]
        self._steps = self._steps[len(over) :]
        if not over:
            return NOTHING
        each = [self._times(data_s, marks) for data_s, marks in over]
        return Times(*(sum(column) / len(each) for column in zip(*each, strict=True)))

    def _times(self, data_s: float, marks: dict[Mark, float | torch.cuda.Event]) -> Times:
        compute_s = _seconds(marks[Mark.BEGIN], marks[Mark.COMPUTED])
        optimizer_s = _seconds(marks[Mark.COMPUTED], marks[Mark.END])
        alone_s = _seconds(marks[Mark.GATHERED], marks[Mark.LAST]) if self._is_alone_between else 0.0
        return Times(data_s, compute_s, optimizer_s, max(alone_s, 0.0))  # a single micro-batch is the last one as well


def _is_over(end: float | torch.cuda.Event | None) -> bool:
    if isinstance(end, torch.cuda.Event):
        return bool(end.query())  # type: ignore[no-untyped-call] # not annotated in torch
    return end is not None


def _seconds(begin: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(begin, torch.cuda.Event):
        milliseconds: float = begin.elapsed_time(end)  # type: ignore[arg-type] # both are events
        return milliseconds / 1e3
    return end - begin  # type: ignore[operator] # both are numbers
