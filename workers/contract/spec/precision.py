"""`precision`: number formats."""

from typing import Literal

from .strict import Strict


class Precision(Strict):
    """Number formats. `auto` computes in bf16 on GPUs that have it and in fp32 elsewhere."""

    params: Literal["fp32"] = "fp32"
    compute: Literal["auto", "fp32", "bf16"] = "auto"
