"""Several tensors under the one-tensor oracle: what Lamb must do with a whole model, computed the slow way."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optim.reference import LambStep, lamb_step

SWITCHES: list[dict[str, Any]] = [
    {"bias_correction": False},
    {"grad_averaging": False},
    {"max_grad_norm": 0.5},
    {"weight_norm_bounds": (0.1, 2.0)},
    {"trust_ratio_bounds": (0.01, 0.3)},
    {"layer_adaptation": False},
    {"weight_decay": 0.0},
    {"betas": (0.8, 0.95)},
    {"eps": 0.1},
]
"""Every switch of Lamb that the one-tensor oracle has too, at a value that changes the result."""


class Oracle:
    """Weights and moments of a model in float64, moved by `lamb_step` alone."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = [weight.detach().to(torch.float64, copy=True) for weight in weights]
        self.exp_avgs = [torch.zeros_like(weight) for weight in self.weights]
        self.exp_avg_sqs = [torch.zeros_like(weight) for weight in self.weights]
        self.steps = [0] * len(self.weights)

    def step(
        self, gradients: Sequence[Tensor | None], own: Mapping[int, Mapping[str, Any]] | None = None, **settings: Any
    ) -> dict[int, LambStep]:
        """Step every tensor that has a gradient; `own` overrides `settings` for tensors by number."""
        squares = (x * x for g in gradients if g is not None for x in g.to(torch.float64).flatten().tolist())
        grad_norm = math.sqrt(math.fsum(squares))
        made = {}
        for i, gradient in enumerate(gradients):
            if gradient is None:
                continue
            self.steps[i] += 1
            before = (self.weights[i], gradient, self.exp_avgs[i], self.exp_avg_sqs[i], self.steps[i])
            made[i] = lamb_step(*before, grad_norm=grad_norm, **(settings | dict((own or {}).get(i, {}))))
            self.weights[i], self.exp_avgs[i], self.exp_avg_sqs[i] = made[i][:3]
        return made


def make_tensors(shapes: Sequence[Sequence[int]], seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return random tensors; the same seed gives the same numbers on every rank."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
