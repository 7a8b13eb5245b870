"""Learning-rate schedules: the number of a step in, a learning rate out."""

import math
from dataclasses import dataclass
from typing import Literal

Decay = Literal["linear", "poly", "cosine", "exponential", "constant"]
Anchor = Literal["warmup", "start"]

_DECAYS: tuple[Decay, ...] = ("linear", "poly", "cosine", "exponential", "constant")


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `lr`, a stretch at `lr`, then a decay; call it with the number of the step, counted from 1.

    With `t` steps of `steps` done, the rate is `lr * t / warmup` below the end of the warm-up, which takes
    `warmup_ratio * steps`, then `lr` for `hold_ratio * steps`, and after that `final_lr + (lr - final_lr) * left`:

    * `"linear"` and `"poly"`: `left = (1 - x) ** power`
    * `"cosine"`: `left = (1 + cos(pi * x)) / 2`
    * `"exponential"`: `left = decay_rate ** (n / decay_steps)` after `n` steps of decay; it never quite ends
    * `"constant"`: the rate stays at `lr`.

    The anchor says what `x` is, and from where the steps of an exponential decay count:

    * `"warmup"`: `x` is the part of the decay that is done, so the curve is continuous.
    * `"start"`: `x` is the part of all steps that is done, so the rate drops where the decay begins. Recipes tuned
      with NVIDIA's PolyWarmUp need it.

    Steps after the last have the rate of the last.
    """

    lr: float
    steps: int
    warmup_ratio: float = 0.0
    decay: Decay = "linear"
    power: float = 1.0
    anchor: Anchor = "warmup"
    final_lr: float = 0.0
    hold_ratio: float = 0.0
    decay_rate: float | None = None
    decay_steps: float | None = None

    def __post_init__(self) -> None:
        _require(self.lr >= 0 and math.isfinite(self.lr), "lr", self.lr, "a finite rate of 0 or more")
        _require(self.steps >= 1, "steps", self.steps, "1 or more")
        _require(0 <= self.warmup_ratio <= 1, "warmup_ratio", self.warmup_ratio, "a part of the steps, from 0 to 1")
        _require(self.decay in _DECAYS, "decay", self.decay, f"one of {', '.join(map(repr, _DECAYS))}")
        _require(self.power > 0 and math.isfinite(self.power), "power", self.power, "more than 0")
        _require(self.power == 1 or self.decay == "poly", "power", self.power, "1 unless decay is 'poly'")
        _require(self.anchor in {"warmup", "start"}, "anchor", self.anchor, "'warmup' or 'start'")
        _require(0 <= self.final_lr <= self.lr, "final_lr", self.final_lr, f"from 0 to lr, {self.lr!r}")
        self._check_hold()
        self._check_exponential()

    def __call__(self, step: int) -> float:
        """Return the learning rate of `step`; 1 is the first."""
        _require(step >= 1, "step", step, "1 or more: steps are counted from 1")
        done = min(step / self.steps, 1.0)
        if done < self.warmup_ratio:
            return self.lr * done / self.warmup_ratio
        if self.decay == "constant" or done < self.warmup_ratio + self.hold_ratio:
            return self.lr
        return self.final_lr + (self.lr - self.final_lr) * self._left(done)

    def _left(self, done: float) -> float:
        """Return the part of the way from `lr` down to `final_lr` that is left when `done` of all steps are done."""
        begin = 0.0 if self.anchor == "start" else self.warmup_ratio + self.hold_ratio
        if self.decay_rate is not None and self.decay_steps is not None:
            return math.pow(self.decay_rate, (done - begin) * self.steps / self.decay_steps)
        # A warm-up over all steps leaves nothing to decay; the last step is then the peak.
        decayed = min((done - begin) / (1.0 - begin), 1.0) if begin < 1 else 0.0
        if self.decay == "cosine":
            return (1.0 + math.cos(math.pi * decayed)) / 2
        left: float = (1.0 - decayed) ** self.power
        return left

    def _check_hold(self) -> None:
        most = 1 - self.warmup_ratio
        # Two decimal fractions that add up to 1 on paper may miss it by a rounding.
        holds = 0 <= self.hold_ratio <= most + 1e-12
        _require(holds, "hold_ratio", self.hold_ratio, f"from 0 to what the warm-up leaves, {most:g}")
        _require(
            self.hold_ratio == 0 or self.decay != "constant",
            "hold_ratio",
            self.hold_ratio,
            "0 where decay is 'constant', which stays at the peak anyway",
        )

    def _check_exponential(self) -> None:
        for name, value in (("decay_rate", self.decay_rate), ("decay_steps", self.decay_steps)):
            if self.decay != "exponential":
                _require(value is None, name, value, "None unless decay is 'exponential'")
            else:
                _require(value is not None, name, value, "given where decay is 'exponential', such as 0.9 in 250 steps")
        _require(self.decay_rate is None or 0 < self.decay_rate < 1, "decay_rate", self.decay_rate, "between 0 and 1")
        is_length = self.decay_steps is None or 0 < self.decay_steps < math.inf
        _require(is_length, "decay_steps", self.decay_steps, "a number of steps, more than 0")


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
