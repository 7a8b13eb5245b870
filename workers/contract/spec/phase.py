"""`phases`: stretches of training, each with one sequence length and one global batch."""

import math
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from workers.contract.problems import fault

from .strict import Count, Fraction, Positive, Strict


class Decay(Strict):
    """How the learning rate falls after the warm-up and the hold."""

    kind: Literal["linear", "poly", "cosine", "exponential", "constant"] = "linear"
    """`linear`, `poly` and `cosine` end at `final_lr`, `exponential` approaches it, `constant` stays at the peak."""
    power: Annotated[float, Field(gt=0)] = 1.0
    """Exponent of `poly`."""
    anchor: Literal["warmup", "start"] = "warmup"
    """Where the decay counts from: the end of warm-up and hold, or step 0 as in NVIDIA's recipe, with a jump down."""
    final_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate where the decay ends."""
    rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of `exponential`: what is left of the way down to `final_lr` after each `every_steps`."""
    every_steps: Positive | None = None
    """Of `exponential`: the optimizer steps in which `rate` is left."""

    @model_validator(mode="after")
    def _has_what_its_kind_uses(self) -> Self:
        if self.power != 1 and self.kind != "poly":
            raise fault(f"{self.kind} decay has no power", "write kind: poly, or leave power out", "power", self.power)
        if self.final_lr and self.kind == "constant":
            raise fault("constant decay stays at lr", "leave final_lr out", "final_lr", self.final_lr)
        for name in ("rate", "every_steps"):
            value = getattr(self, name)
            if self.kind == "exponential" and value is None:
                raise fault(
                    "exponential decay needs it", "write for example {rate: 0.9, every_steps: 250}", name, value
                )
            if self.kind != "exponential" and value is not None:
                remedy = f"write kind: exponential, or leave {name} out"
                raise fault(f"{self.kind} decay has no {name}", remedy, name, value)
        return self


class Scaled(Strict):
    """A number that was found at one global batch, scaled to the phase's own."""

    base: Annotated[float, Field(gt=0)]
    """The number at the batch `at_batch`."""
    at_batch: Positive
    """Global batch at which it is `base`."""
    rule: Literal["sqrt", "linear"]
    """`linear`: it grows with the batch; `sqrt`: with the square root of the batch."""

    def at(self, global_batch_size: int) -> float:
        """Return the number at a global batch."""
        scale = global_batch_size / self.at_batch
        return self.base * (math.sqrt(scale) if self.rule == "sqrt" else scale)


def _form(value: object) -> str:
    return "Scaled" if isinstance(value, dict | Scaled) else "float"


_Scaled = Annotated[Scaled, Tag("Scaled")]
Rate = Annotated[Annotated[float, Field(gt=0), Tag("float")] | _Scaled, Discriminator(_form)]
Share = Annotated[Annotated[Fraction, Tag("float")] | _Scaled, Discriminator(_form)]


class Phase(Strict):
    """A stretch of training with one sequence length and one global batch."""

    seq_len: Annotated[Count, Field(ge=8)]
    """Tokens per sequence."""
    global_batch_size: Positive
    """Sequences per step, over all workers."""
    micro_batch_size: Positive = 32
    """Sequences of one forward pass on one worker; the accumulation count follows from it."""
    steps: Positive
    """Optimizer steps of this phase."""
    lr: Rate
    """Learning rate at the end of the warm-up, or the rule `{base, at_batch, rule}` that gives it."""
    warmup: Share = 0.1
    """Share of the phase's steps over which the learning rate rises from zero, or the rule that gives it."""
    hold: Fraction = 0.0
    """Share of the phase's steps at the peak, between the warm-up and the decay."""
    decay: Decay = Decay()
    """How the learning rate falls after the warm-up and the hold."""
    reset: tuple[Literal["step"], ...] = ()
    """What the optimizer forgets when this phase begins: `step` is its step count, not the moments."""

    @property
    def peak_lr(self) -> float:
        """Learning rate at the end of the warm-up, at this phase's global batch."""
        return self.lr.at(self.global_batch_size) if isinstance(self.lr, Scaled) else self.lr

    @property
    def warmup_share(self) -> float:
        """Share of the steps that are warm-up, at this phase's global batch."""
        return self.warmup.at(self.global_batch_size) if isinstance(self.warmup, Scaled) else self.warmup

    @model_validator(mode="after")
    def _is_a_schedule(self) -> Self:
        batch, share = self.global_batch_size, self.warmup_share
        if not math.isfinite(self.peak_lr):
            problem = f"gives a learning rate beyond all numbers at a global batch of {batch:,}"
            raise fault(problem, "lower base or the batch", "lr", self.lr)
        if share > 1:
            problem = f"gives a warm-up of {share:g} of the steps at a global batch of {batch:,}"
            raise fault(problem, "lower base or the batch, or write the share itself", "warmup", self.warmup)
        if self.hold and self.decay.kind == "constant":
            raise fault("constant decay stays at lr", "leave hold out, or choose another decay", "hold", self.hold)
        if self.hold > 1 - share + _ROUNDING:
            problem = f"together with a warm-up of {share:g} is more than all steps"
            raise fault(problem, f"write at most {1 - share:g}", "hold", self.hold)
        if self.decay.final_lr > self.peak_lr:
            problem = f"is more than the learning rate that it falls from, {self.peak_lr:g}"
            raise fault(problem, "lower it", "decay.final_lr", self.decay.final_lr)
        return self


_ROUNDING = 1e-12
"""Two decimal fractions that add up to 1 on paper may miss it by this much."""
