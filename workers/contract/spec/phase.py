"""`phases`: stretches of training, each with one sequence length and one global batch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from workers.contract.problems import fault

from .strict import Count, Fraction, Positive, Strict


class Decay(Strict):
    """How the learning rate falls after the warm-up."""

    kind: Literal["linear", "poly", "constant"] = "linear"
    """`linear` and `poly` end at zero, `constant` stays at the phase's learning rate."""
    power: Annotated[float, Field(gt=0)] = 1.0
    """Exponent of `poly`."""
    anchor: Literal["warmup", "start"] = "warmup"
    """Where the decay counts from: the end of the warm-up, or step 0 as NVIDIA's recipe does, with a jump down."""

    @model_validator(mode="after")
    def _power_is_used(self) -> Self:
        if self.power != 1 and self.kind != "poly":
            raise fault(f"{self.kind} decay has no power", "write kind: poly, or leave power out", "power", self.power)
        return self


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
    lr: Annotated[float, Field(gt=0)]
    """Learning rate at the end of the warm-up."""
    warmup: Fraction = 0.1
    """Share of the phase's steps over which the learning rate rises from zero."""
    decay: Decay = Decay()
    """How the learning rate falls after the warm-up."""
    reset: tuple[Literal["step"], ...] = ()
    """What the optimizer forgets when this phase begins: `step` is its step count, not the moments."""
