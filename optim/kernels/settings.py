"""The numbers that an operator reads for each tensor, and the table that carries them. Shapes: T tensors in a call."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Types of devices that have no float64."""


class Settings(NamedTuple):
    """What LAMB is told about one tensor; one row of the table, in this order."""

    beta1: float = 0.9
    beta2: float = 0.999
    beta3: float = 0.1
    """Weight of the gradient in the first moment."""
    eps: float = 1e-6
    weight_decay: float = 0.01
    weight_low: float = 0.0
    weight_high: float = math.inf
    ratio_low: float = 0.0
    ratio_high: float = math.inf
    bias_correction: float = 1.0
    """0 or 1, like the next."""
    layer_adaptation: float = 1.0


def table(rows: Sequence[Settings]) -> Tensor:
    """Return float64 [T, 11] on the host, whatever the default device."""
    return torch.tensor(rows, dtype=torch.float64, device="cpu").view(-1, len(Settings._fields))


def unpack(settings_T11: Tensor) -> list[Settings]:
    """Return the rows of a table."""
    return [Settings(*row) for row in settings_T11.tolist()]


def float_of(device: torch.device) -> torch.dtype:
    """Return in which dtype sums, rates and factors are kept on a device: float64, but MPS has only float32."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64
