"""The numbers that an operator reads for each tensor, and the table that carries them."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeVarTuple

import torch
from torch import Tensor
from torch._guards import detect_fake_mode


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


Arguments = TypeVarTuple("Arguments")


def remembered(make: Callable[[*Arguments], Tensor]) -> Callable[[*Arguments], Tensor]:
    """Return the same tensor for the same arguments; under FakeTensorMode, which takes none from outside, a new one."""
    cached = functools.lru_cache(maxsize=256)(make)

    @functools.wraps(make)
    def either(*args: *Arguments) -> Tensor:
        return cached(*args) if detect_fake_mode() is None else make(*args)

    return either


@remembered
def table(rows: tuple[tuple[Settings, int], ...]) -> Tensor:
    """Return float64 [T, 11] on the host from settings and how many tensors in a row have them.

    The same rows give the same tensor, so a kernel can tell by identity that nothing has changed. Nobody writes to it.
    """
    numbers = [settings for settings, count in rows for _ in range(count)]
    return torch.tensor(numbers, dtype=torch.float64, device="cpu")


def unpack(settings: Tensor) -> list[Settings]:
    """Return the rows of a table."""
    return [Settings(*row) for row in settings.tolist()]
