"""Tensors that one call of an operator takes together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from .kernels.settings import Settings, remembered, table
from .sharding import Groups, local_part


@dataclass
class Batch:
    """Tensors that share dtypes and shard groups; lists hold what this rank has of each. T = their number."""

    groups: Groups
    names: list[str] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    copies: list[Tensor] = field(default_factory=list)
    exp_avgs: list[Tensor] = field(default_factory=list)
    exp_avg_sqs: list[Tensor] = field(default_factory=list)
    first_scales: list[Tensor] = field(default_factory=list)
    second_scales: list[Tensor] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)
    rows: list[Settings] = field(default_factory=list)
    rates: list[float | Tensor] = field(default_factory=list)

    def add(self, name: str, parameter: Tensor, grad: Tensor, state: Mapping[str, Tensor]) -> None:
        """Append a tensor and its state."""
        self.names.append(name)
        self.grads.append(local_part(grad))
        self.weights.append(local_part(state.get("master", parameter)))
        if "master" in state:
            self.copies.append(local_part(parameter))
        self.exp_avgs.append(local_part(state["exp_avg"]))
        self.exp_avg_sqs.append(local_part(state["exp_avg_sq"]))
        if "exp_avg_scale" in state:
            self.first_scales.append(state["exp_avg_scale"])
            self.second_scales.append(state["exp_avg_sq_scale"])
        self.steps.append(state["step"])

    @property
    def moments(self) -> tuple[list[Tensor], ...]:
        """Moments, scales and steps, as all passes take them."""
        return self.exp_avgs, self.exp_avg_sqs, [*self.first_scales, *self.second_scales], self.steps

    @property
    def settings(self) -> Tensor:
        """The table of settings, float64 [T, 11] on the host."""
        return table(_runs(self.rows))

    @property
    def lr(self) -> Tensor:
        """Learning rates, float64 [T] on the device."""
        device = self.weights[0].device
        if not any(isinstance(rate, Tensor) for rate in self.rates):
            return _rates(_runs(self.rates), device)
        return torch.stack([torch.as_tensor(r, dtype=torch.float64, device=device).reshape(()) for r in self.rates])


def settings_of(group: Mapping[str, Any], *, bias_correction: bool, grad_averaging: bool) -> Settings:
    """Return the settings that all tensors of a parameter group have."""
    beta1, beta2 = group["betas"]
    adapted = group["layer_adaptation"]
    weight_low, weight_high = group["weight_norm_bounds"] or (0.0, math.inf)
    ratio_low, ratio_high = group["trust_ratio_bounds"] or (0.0, math.inf)
    return Settings(
        beta1,
        beta2,
        1 - beta1 if grad_averaging else 1.0,
        group["eps"],
        group["weight_decay"],
        weight_low,
        weight_high,
        ratio_low,
        ratio_high,
        bias_correction,
        group["weight_decay"] != 0 if adapted == "decayed" else adapted,
    )


@remembered
def unclipped(device: torch.device) -> Tensor:
    """What `lamb_clip` returns where nobody asks for the norm."""
    return torch.tensor([math.nan, 1.0, 0.0], dtype=torch.float64, device=device)


def _runs(entries: Sequence[Any]) -> tuple[tuple[Any, int], ...]:
    return tuple((entry, len(list(same))) for entry, same in groupby(entries))


@remembered
def _rates(runs: tuple[tuple[float, int], ...], device: torch.device) -> Tensor:
    rates = torch.tensor([rate for rate, count in runs for _ in range(count)], dtype=torch.float64, device="cpu")
    # From pinned memory a copy does not make the host wait.
    return rates.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else rates.to(device)
