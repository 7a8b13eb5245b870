"""Float32 master weights kept true to their half-precision parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 1 << 24
"""Elements that are compared at a time, so that what is made on the way stays small beside the tensors."""


def follow(masters: Sequence[Tensor], copies: Sequence[Tensor], skip: Tensor) -> None:
    """Write into each master what somebody else has written into its copy since the last step; no host waits.

    A copy is its master rounded. An element that is not was written by others, in whatever way: by a rollback, an
    average of the weights, an assignment to `.data`. Where it is, the master keeps its finer number, so weights that
    are swapped out and back lose no bit. Where `skip`, a bool scalar, holds, nothing changes.
    """
    for master, copy in zip(masters, copies, strict=True):
        rows = max(1, BLOCK * len(master) // master.numel()) if master.numel() > BLOCK else 0
        blocks = zip(torch.split(master, rows), torch.split(copy, rows), strict=True) if rows else [(master, copy)]
        for fine, rounded in blocks:
            fine.copy_(torch.where(skip | (rounded == fine.to(rounded.dtype)), fine, rounded))
