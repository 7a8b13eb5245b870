"""What a step leaves behind, brought from the device to the reporter without holding up the device.

Each step's numbers stay where they were computed. Every few steps one all-reduce sums the ranks' losses, and brings
rank 0's command to all ranks, so that all of them stop after the same step; one copy then takes everything to the host.
"""

import math
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optim import LastStep
from workers.contract.push import Command
from workers.ranks import all_reduce_sum

from .reporter import Reporter

_STEPS_PER_FLUSH = {"cpu": 1}
_STEPS_PER_FLUSH_ON_A_GPU = 10
_COMMANDS = list(Command)
_N_SUMS = 6


class _Row(NamedTuple):
    step: int
    phase: int
    lr: float
    sums: Tensor
    """(6,) float64, this rank's MLM loss, NSP loss, right guesses, masked positions, tokens, sequences."""
    rest: Tensor
    """(3 + T,) float64, grad norm, clip coefficient, skipped, trust ratios: the same on every rank."""


class Telemetry:
    """Collects steps and flushes them. Every rank has one; only rank 0's reports."""

    def __init__(self, device: torch.device, reporter: Reporter | None) -> None:
        self.skipped_in_a_row = 0
        self._reporter = reporter
        self._device = device
        self._rows: list[_Row] = []
        self._capacity = _STEPS_PER_FLUSH.get(device.type, _STEPS_PER_FLUSH_ON_A_GPU)
        self._since = time.perf_counter()

    def record(self, step: int, phase: int, lr: float, sums: Tensor, last: LastStep, *, flush: bool) -> Command:
        """Keep one step's numbers; on a flush, report them and return the command that all ranks obey now."""
        norm = torch.full_like(last.clip_coef, math.nan) if last.grad_norm is None else last.grad_norm
        scalars = torch.stack([norm, last.clip_coef, last.skipped.double()])
        self._rows.append(_Row(step, phase, lr, sums, torch.cat([scalars, last.trust_ratio])))
        if not flush and len(self._rows) < self._capacity:
            return Command.NONE
        return self._flush()

    def restart_clock(self) -> None:
        """Leave what was done since the last flush, such as a checkpoint, out of the next steps' time."""
        self._since = time.perf_counter()

    def _flush(self) -> Command:
        rows, self._rows = self._rows, []
        wanted = self._reporter.command if self._reporter else Command.NONE
        command = torch.tensor([float(_COMMANDS.index(wanted))], dtype=torch.float64, device=self._device)
        summed = all_reduce_sum(torch.cat([*(row.sums for row in rows), command]))
        host: list[float] = torch.cat([summed, *(row.rest for row in rows)]).tolist()
        elapsed_s = (time.perf_counter() - self._since) / len(rows)
        self._since = time.perf_counter()
        n_sums = len(rows) * _N_SUMS
        width = len(rows[0].rest)
        for i, row in enumerate(rows):
            at = n_sums + 1 + i * width
            self._report(row, host[i * _N_SUMS : (i + 1) * _N_SUMS], host[at : at + width], elapsed_s)
        return _COMMANDS[round(host[n_sums])]

    def _report(self, row: _Row, sums: list[float], rest: list[float], step_s: float) -> None:
        skipped = bool(rest[2])
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self._reporter is None:
            return
        self._reporter.emit("step", step=row.step, phase=row.phase, lr=row.lr, **_numbers(sums, rest, step_s))


def _numbers(sums: list[float], rest: list[float], step_s: float) -> dict[str, Any]:
    mlm, nsp, correct, masked, tokens, sequences = sums
    grad_norm, clip_coef, skipped, *trust_ratio = rest
    return {
        "loss": _finite(mlm / masked + nsp / sequences),
        "mlm_loss": _finite(mlm / masked),
        "nsp_loss": _finite(nsp / sequences),
        "mlm_accuracy": correct / masked,
        "grad_norm": _finite(grad_norm),
        "clip_coef": _finite(clip_coef),
        "skipped": bool(skipped),
        "tokens_per_s": tokens / step_s,
        "step_s": step_s,
        "trust_ratio": [_finite(ratio) for ratio in trust_ratio],
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
