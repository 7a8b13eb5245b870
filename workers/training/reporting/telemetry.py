"""What a step leaves behind, brought from the device to the reporter without holding up the device.

Each step's numbers stay where they were computed. Every few steps one all-reduce sums what the ranks counted, and
brings what any rank asks to all ranks, so that all of them stop after the same step; one copy then takes everything to
the host. A suffix of a tensor's name tells its shape: S = the fields of Sums, C = commands, W = ranks, K = numbers of
one step.
"""

import math
import resource
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optim import Lamb, LastStep
from workers.contract.push import Command
from workers.contract.records import VECTORS, StepRecord, TensorsRecord
from workers.ranks import all_reduce_sum, gather, rank, world_size
from workers.training.safety.agreement import Agreement
from workers.training.safety.health import Health
from workers.training.safety.signals import StopRequest

from .clock import StepClock, Times
from .reporter import Reporter

_STEPS_PER_FLUSH = {"cpu": 1}
_STEPS_PER_FLUSH_ON_A_GPU = 10
_LONGEST_WAIT_S = 2.0
"""Slow steps are flushed more often, so that a rank that is told to end is heard long before it is killed."""


class Sums(NamedTuple):
    """What each rank counts of a step and all ranks add up."""

    mlm_loss: float
    """Nats, over the masked positions."""
    nsp_loss: float
    """Nats, over the pairs."""
    correct: float
    """Masked positions guessed right."""
    masked: float
    pairs: float
    """Samples with a next-sentence label: all, or none where that is no task."""
    tokens: float
    """That are not padding."""
    samples: float
    rows: float


class _Step(NamedTuple):
    """A step that was taken and not reported yet."""

    step: int
    phase: int
    lr: float
    sums: Tensor
    """(S,) float64, this rank's Sums."""
    names: tuple[str, ...]
    numbers: Tensor
    """(K,) float64, the same on every rank: grad norm, clip coefficient, skipped, then T each of VECTORS."""


class Telemetry:
    """Collects steps and flushes them. Every rank has one; only rank 0's reports."""

    def __init__(
        self,
        optimizer: Lamb,
        device: torch.device,
        reporter: Reporter | None,
        attempt: int,
        health: Health,
        stop: StopRequest,
        clock: StepClock,
    ) -> None:
        self._health, self._stop = health, stop
        self._optimizer = optimizer
        self._device = device
        self._reporter = reporter
        self._attempt = attempt
        self._steps: list[_Step] = []
        self._sets: dict[tuple[str, ...], TensorsRecord] = {}
        self._agreement = Agreement(device)
        self._most_steps = self._capacity = _STEPS_PER_FLUSH.get(device.type, _STEPS_PER_FLUSH_ON_A_GPU)
        self._step_s = 0.0  # of this rank, at the last flush
        self._clock = clock
        self.restart_clock()

    def record(self, step: int, phase: int, lr: float, sums_S: Tensor, *, flush: bool) -> Command:
        """Keep what the optimizer says of the step just taken, report on a flush, and return the command to obey.

        A command that arrived in the middle of a step is obeyed after that one or the next.
        """
        last = self._optimizer.last_step
        if last is None:
            raise RuntimeError(f"step {step} changed nothing: no parameter had a gradient")
        self._steps.append(_Step(step, phase, lr, sums_S, last.names, _numbers(last)))
        command, is_due = Command.NONE, flush or len(self._steps) >= self._capacity
        if not is_due:
            command = self._agreement.exchange(self.wanted)
        if is_due or command is not Command.NONE:  # a checkpoint may follow, which holds all steps so far
            command = max(command, self._flush(), key=list(Command).index)
        self._clock.restart()
        return command

    def restart_clock(self) -> None:
        """Leave what was done since the last flush, such as a checkpoint, out of the next steps' time."""
        self._since = time.perf_counter()
        self._clock.restart()

    def _flush(self) -> Command:
        steps, self._steps = self._steps, []
        wanted = self.wanted
        self._agreement.forget()  # what was wanted then still is
        is_wanted = [float(each is wanted) for each in Command]
        own = self._clock.take()
        told = torch.tensor([*is_wanted, self._step_s, *own, *self._of_each(own)], dtype=torch.float64)
        summed = all_reduce_sum(torch.cat([*(step.sums for step in steps), told.to(self._device)]))
        host = torch.cat([summed, *(step.numbers for step in steps)]).numpy(force=True)
        told_sizes = [len(is_wanted), 1 + len(own), 2 * world_size()]
        sizes = [*(len(step.sums) for step in steps), *told_sizes, *(len(step.numbers) for step in steps)]
        parts = iter(np.split(host, np.cumsum(sizes)[:-1]))  # in the order of the sizes
        sums = [Sums(*next(parts).tolist()) for _ in steps]
        is_wanted_C, (mean_step_s, *means), of_each = next(parts), next(parts) / world_size(), next(parts)
        measured = _measured(Times(*means), *np.split(of_each, 2))
        self._step_s = (time.perf_counter() - self._since) / len(steps)
        self._since = time.perf_counter()
        self._capacity = _steps_per_flush(self._most_steps, float(mean_step_s))
        for step, summed_up, numbers_K in zip(steps, sums, parts, strict=True):
            self._report(step, summed_up, numbers_K, self._step_s, measured)
        return list(Command)[int(np.flatnonzero(is_wanted_C)[-1])]  # the last one ends the run most surely

    def _of_each(self, own: Times) -> list[float]:
        """Return the memory of each rank, then its time without the others: 0 for all ranks but this one."""
        numbers = (self._peak_memory_bytes(), own.own_s if own.alone_s else 0.0)
        return [number if each == rank() else 0.0 for number in numbers for each in range(world_size())]

    def _peak_memory_bytes(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB

    @property
    def wanted(self) -> Command:
        """What this rank asks of all ranks: what the control plane says, or to end where this process is told to."""
        said = self._reporter.command if self._reporter else Command.NONE
        told = self._stop.command if self._stop.is_asked else Command.NONE
        return max(said, told, key=list(Command).index)

    def agree(self) -> Command:
        """Return what all ranks obey, without waiting for the next flush. Every rank calls this."""
        return max(gather(self.wanted), key=list(Command).index)

    def _report(
        self, step: _Step, sums: Sums, numbers_K: NDArray[np.float64], step_s: float, measured: dict[str, Any]
    ) -> None:
        self._health.observe(_loss(sums), skipped=bool(numbers_K[2]))
        if self._reporter is None:
            return
        tensors = self._tensors(step.names)
        record = _record(step, self._attempt, tensors.set, sums, numbers_K, step_s)
        tensors.check(record)
        self._reporter.emit(record.model_copy(update=measured))

    def _tensors(self, names: tuple[str, ...]) -> TensorsRecord:
        """Return the record that names these tensors, and report it at their first step."""
        if names not in self._sets:
            groups = self._optimizer.param_groups
            adapted = {name: group["layer_adaptation"] for group in groups for name in group["param_names"]}
            self._sets[names] = TensorsRecord(names=list(names), adapted=[adapted[name] for name in names])
            if self._reporter:
                self._reporter.emit(self._sets[names])
        return self._sets[names]


def _steps_per_flush(most: int, step_s: float) -> int:
    """Return after how many steps to flush, the same on every rank, where a step takes `step_s` on average."""
    return most if step_s * most <= _LONGEST_WAIT_S else max(1, int(_LONGEST_WAIT_S / step_s))


def _measured(means: Times, peaks_W: NDArray[np.float64], own_W: NDArray[np.float64]) -> dict[str, Any]:
    """Return the fields of a step record that the ranks have measured."""
    found: dict[str, Any] = {"peak_memory_bytes": int(peaks_W.max())}
    if means.compute_s:
        found |= {"data_s": means.data_s, "compute_s": means.compute_s, "optimizer_s": means.optimizer_s}
    if len(own_W) > 1 and own_W.all():
        found |= {"slowest_rank": int(own_W.argmax()), "waiting_s": float(own_W.max() - own_W.mean())}
    return found


def _numbers(last: LastStep) -> Tensor:
    norm = torch.full_like(last.clip_coef, math.nan) if last.grad_norm is None else last.grad_norm
    scalars = torch.stack([norm, last.clip_coef, last.skipped.double()])
    return torch.cat([scalars, *(getattr(last, what) for what in VECTORS)])


def _record(
    step: _Step, attempt: int, tensor_set: str, sums: Sums, numbers_K: NDArray[np.float64], step_s: float
) -> StepRecord:
    (grad_norm, clip_coef, skipped), vectors = numbers_K[:3].tolist(), np.split(numbers_K[3:], len(VECTORS))
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        packed = {what: vector.astype("<f4").tobytes() for what, vector in zip(VECTORS, vectors, strict=True)}
    return StepRecord(
        step=step.step,
        attempt=attempt,
        phase=step.phase,
        loss=_loss(sums),
        mlm_loss=_mean(sums.mlm_loss, sums.masked),
        nsp_loss=_mean(sums.nsp_loss, sums.pairs),
        mlm_accuracy=_mean(sums.correct, sums.masked),
        lr=step.lr,
        grad_norm=finite(grad_norm),
        clip_coef=finite(clip_coef),
        skipped=bool(skipped),
        rows=round(sums.rows),
        samples=round(sums.samples),
        tokens=round(sums.tokens),
        tokens_per_s=sums.tokens / step_s,
        step_s=step_s,
        set=tensor_set,
        **dict.fromkeys(VECTORS) if skipped else packed,
    )


def _loss(sums: Sums) -> float | None:
    mlm_loss = _mean(sums.mlm_loss, sums.masked)
    nsp_loss = _mean(sums.nsp_loss, sums.pairs) if sums.pairs else 0.0
    return None if mlm_loss is None or nsp_loss is None else mlm_loss + nsp_loss


def _mean(total: float, count: float) -> float | None:
    return finite(total / count) if count else None


def finite(number: float | None) -> float | None:
    """Return the number, None where a record cannot hold it."""
    return number if number is not None and math.isfinite(number) else None
