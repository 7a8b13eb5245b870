"""Learning-rate schedules: the number of a step in, a learning rate out."""

import math
from dataclasses import dataclass
from typing import Literal

Decay = Literal["linear", "poly", "constant"]
Anchor = Literal["warmup", "start"]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `lr`, then a decay to `final_lr`; call it with the number of the step, counted from 1.

    With `t` steps of `steps` done and a warm-up of `warmup_ratio * steps`, the rate is `lr * t / warmup` below the end
    of the warm-up, and after it `final_lr + (lr - final_lr) * (1 - x) ** power`, where the anchor says what `x` is:

    * `"warmup"`: the part of the decay that is done, so the curve is continuous.
    * `"start"`: the part of all steps that is done, so the rate drops where the warm-up ends. Recipes tuned with
      NVIDIA's PolyWarmUp need it.

    Steps after the last keep `final_lr`.
    """

    lr: float
    steps: int
    warmup_ratio: float = 0.0
    decay: Decay = "linear"
    power: float = 1.0
    anchor: Anchor = "warmup"
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        _require(self.lr >= 0 and math.isfinite(self.lr), "lr", self.lr, "a finite rate of 0 or more")
        _require(self.steps >= 1, "steps", self.steps, "1 or more")
        _require(0 <= self.warmup_ratio <= 1, "warmup_ratio", self.warmup_ratio, "a part of the steps, from 0 to 1")
        _require(self.decay in {"linear", "poly", "constant"}, "decay", self.decay, "'linear', 'poly' or 'constant'")
        _require(self.power > 0 and math.isfinite(self.power), "power", self.power, "more than 0")
        _require(self.power == 1 or self.decay == "poly", "power", self.power, "1 unless decay is 'poly'")
        _require(self.anchor in {"warmup", "start"}, "anchor", self.anchor, "'warmup' or 'start'")
        _require(0 <= self.final_lr <= self.lr, "final_lr", self.final_lr, f"from 0 to lr, {self.lr!r}")

    def __call__(self, step: int) -> float:
        """Return the learning rate of `step`; 1 is the first."""
        _require(step >= 1, "step", step, "1 or more: steps are counted from 1")
        done = min(step / self.steps, 1.0)
        if done < self.warmup_ratio:
            return self.lr * done / self.warmup_ratio
        if self.decay == "constant":
            return self.lr
        left: float = (1.0 - self._decayed(done)) ** self.power
        return self.final_lr + (self.lr - self.final_lr) * left

    def _decayed(self, done: float) -> float:
        if self.anchor == "start":
            return done
        # A warm-up over all steps leaves nothing to decay; the last step is then the peak.
        return (done - self.warmup_ratio) / (1.0 - self.warmup_ratio) if self.warmup_ratio < 1 else 0.0


def untuned(batch: int) -> tuple[float, float]:
    """Return (lr, warmup_ratio) for BERT with a global batch of `batch` sequences, by the paper's rule.

    The rate grows with the square root of the batch, the warm-up with the batch: 32,768 sequences have (5e-3, 1/5).
    """
    _require(1 <= batch <= 5 * 32768, "batch", batch, "from 1 to 163840, where the warm-up is the whole run")
    scale = batch / 32768
    return 5e-3 * math.sqrt(scale), scale / 5


def _require(holds: bool, name: str, value: object, remedy: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; it must be {remedy}")
