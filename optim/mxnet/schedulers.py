"""MXNet's learning-rate schedulers: called with the number of updates, 1 at the first step.

They remember where they are: the rate that was last computed is `base_lr`, and calls are expected in rising order.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from .validation import check_count, check_number

WarmupMode = Literal["linear", "constant"]


class LRScheduler:
    """The warm-up that all have, then the rate that a subclass computes.

    Below `warmup_steps` updates the rate rises in a line from `warmup_begin_lr` to `base_lr` ("linear") or stays at
    `warmup_begin_lr` ("constant").
    """

    def __init__(
        self,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: WarmupMode = "linear",
    ) -> None:
        check_number("base_lr", base_lr)
        _require(math.isfinite(base_lr), "base_lr", base_lr, "finite")
        check_count("warmup_steps", warmup_steps)
        check_number("warmup_begin_lr", warmup_begin_lr)
        _require(warmup_begin_lr <= base_lr, "warmup_begin_lr", warmup_begin_lr, f"at most base_lr, {base_lr!r}")
        _require(warmup_mode in {"linear", "constant"}, "warmup_mode", warmup_mode, "'linear' or 'constant'")
        self.base_lr = float(base_lr)
        self.warmup_final_lr = float(base_lr)
        self.warmup_begin_lr = float(warmup_begin_lr)
        self.warmup_steps = warmup_steps
        self.warmup_mode = warmup_mode

    def __call__(self, num_update: int) -> float:
        """Return the rate at `num_update`."""
        if num_update < self.warmup_steps:
            return self._warmup(num_update)
        self._advance(num_update)
        return self.base_lr

    def _warmup(self, num_update: int) -> float:
        if self.warmup_mode == "constant":
            return self.warmup_begin_lr
        return self.warmup_begin_lr + (self.warmup_final_lr - self.warmup_begin_lr) * num_update / self.warmup_steps

    def _advance(self, num_update: int) -> None:
        """Bring `base_lr` to `num_update`, which is past the warm-up."""
        raise NotImplementedError(f"{type(self).__name__} does not say what follows the warm-up: define _advance()")


class FactorScheduler(LRScheduler):
    """Multiply by `factor` after every `step` updates, counted from 0, and stay at `stop_factor_lr` or above."""

    def __init__(
        self,
        step: int,
        factor: float = 1.0,
        stop_factor_lr: float = 1e-8,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: WarmupMode = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        check_count("step", step, least=1)
        check_number("factor", factor)
        check_number("stop_factor_lr", stop_factor_lr)
        _require(factor <= 1, "factor", factor, "at most 1, or the rate would grow")
        self.step = step
        self.factor = float(factor)
        self.stop_factor_lr = float(stop_factor_lr)
        self.count = 0

    def _advance(self, num_update: int) -> None:
        while num_update > self.count + self.step:
            self.count += self.step
            self.base_lr = max(self.base_lr * self.factor, self.stop_factor_lr)


class MultiFactorScheduler(LRScheduler):
    """Multiply by `factor` once after each of the updates that `step` lists."""

    def __init__(
        self,
        step: Sequence[int],
        factor: float = 1.0,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: WarmupMode = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        wanted = "a rising list of update numbers, each 1 or more"
        if not isinstance(step, Iterable):
            raise TypeError(f"step is {step!r}; it must be {wanted}")
        for each in step:
            check_count("a number of step", each, least=1)
        _require(len(step) > 0 and all(a < b for a, b in pairwise(step)), "step", step, wanted)
        check_number("factor", factor)
        _require(factor <= 1, "factor", factor, "at most 1, or the rate would grow")
        self.step = list(step)
        self.factor = float(factor)
        self.cur_step_ind = 0

    def _advance(self, num_update: int) -> None:
        while self.cur_step_ind < len(self.step) and num_update > self.step[self.cur_step_ind]:
            self.cur_step_ind += 1
            self.base_lr *= self.factor


class _DecayScheduler(LRScheduler):
    """Fall from the first `base_lr` to `final_lr` between the warm-up and `max_update`.

    Past `max_update` the rate is the last that was computed, so one that is first called there has not fallen at all.
    """

    def __init__(
        self,
        max_update: int,
        base_lr: float,
        final_lr: float,
        warmup_steps: int,
        warmup_begin_lr: float,
        warmup_mode: WarmupMode,
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        check_count("max_update", max_update, least=1)
        check_number("final_lr", final_lr)
        self.base_lr_orig = self.base_lr
        self.final_lr = float(final_lr)
        self.max_update = max_update

    def _advance(self, num_update: int) -> None:
        if num_update > self.max_update:
            return
        # A warm-up over all updates leaves nothing to decay; the last is then the peak.
        length = self.max_update - self.warmup_steps
        done = (num_update - self.warmup_steps) / length if length else 0.0
        self.base_lr = self.final_lr + (self.base_lr_orig - self.final_lr) * self._left(done)

    def _left(self, done: float) -> float:
        """Return the part of the rate that is left when `done`, from 0 to 1, of the decay is."""
        raise NotImplementedError(f"{type(self).__name__} has no curve: define _left()")


class PolyScheduler(_DecayScheduler):
    """Fall to `final_lr` at `max_update` as `(1 - x) ** pwr`."""

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        pwr: float = 2,
        final_lr: float = 0.0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: WarmupMode = "linear",
    ) -> None:
        super().__init__(max_update, base_lr, final_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        check_number("pwr", pwr)
        _require(pwr >= 0, "pwr", pwr, "0 or more")
        self.power = float(pwr)

    def _left(self, done: float) -> float:
        left: float = (1.0 - done) ** self.power
        return left


class CosineScheduler(_DecayScheduler):
    """Fall to `final_lr` at `max_update` along half a cosine."""

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        final_lr: float = 0.0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: WarmupMode = "linear",
    ) -> None:
        super().__init__(max_update, base_lr, final_lr, warmup_steps, warmup_begin_lr, warmup_mode)

    def _left(self, done: float) -> float:
        return (1.0 + math.cos(math.pi * done)) / 2.0


def _require(holds: bool, name: str, value: object, remedy: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; it must be {remedy}")
