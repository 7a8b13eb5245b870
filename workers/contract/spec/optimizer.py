"""`optimizer`: LAMB or AdamW and their settings."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from workers.contract.problems import fault

from .strict import Strict


class Optimizer(Strict):
    """LAMB, or AdamW computed by the same code with every trust ratio held at 1."""

    name: Literal["lamb", "adamw"] = "lamb"
    """`adamw` is computed by the same code with every trust ratio held at 1."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay of the first and of the second moment."""
    eps: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the root of the second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Share of a weight that is added to its update."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradients are scaled down to this global norm where theirs is larger; null leaves them as they are."""
    bias_correction: bool = True
    """Whether the moments are corrected for having begun at zero."""
    grad_averaging: bool = True
    """Whether the first moment takes 1 - beta of a gradient; else all of it."""
    weight_norm_bounds: tuple[float, float] | None = None
    """Least and greatest weight norm that enters a trust ratio."""
    trust_ratio_bounds: tuple[float, float] | None = None
    """Least and greatest trust ratio."""
    moments: Literal["full", "bfloat16", "8bit"] = "full"
    """How the two moments are stored: in 8, 4 or 2.03 bytes per parameter; the narrow ones round stochastically."""
    no_decay: tuple[str, ...] = ("bias", "LayerNorm")
    """Parts of parameter names that take no weight decay."""
    no_adaptation: tuple[str, ...] = ("bias", "LayerNorm")
    """Parts of parameter names whose trust ratio is held at 1."""

    @field_validator("weight_norm_bounds", "trust_ratio_bounds")
    @classmethod
    def _is_ordered(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and not 0 <= bounds[0] <= bounds[1]:
            raise fault("bounds are two numbers, 0 <= lower <= upper", "write for example [0.01, 10.0]")
        return bounds
