"""`precision`: number formats."""

from typing import Literal

from .strict import Strict


class Precision(Strict):
    """Number formats."""

    params: Literal["fp32"] = "fp32"
    """Format of the weights."""
    compute: Literal["auto", "fp32", "bf16"] = "auto"
    """Format of the forward and backward pass; `auto` is bf16 on GPUs that have it and fp32 elsewhere."""
