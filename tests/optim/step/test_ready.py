"""What a step finds in its optimizer."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from optim.kernels.settings import Settings
from optim.step.ready import Ready, settings_of

GROUP = {
    "betas": (0.8, 0.9),
    "eps": 1e-3,
    "weight_decay": 0.0,
    "layer_adaptation": True,
    "weight_norm_bounds": None,
    "trust_ratio_bounds": None,
}


def of_group(*, bias_correction: bool = True, grad_averaging: bool = True, **changes: Any) -> Settings:
    return settings_of(GROUP | changes, bias_correction=bias_correction, grad_averaging=grad_averaging)


def test_the_settings_of_a_group_become_numbers_and_no_bound_is_the_widest() -> None:
    assert of_group() == Settings(0.8, 0.9, 1 - 0.8, 1e-3, 0.0, 0.0, math.inf, 0.0, math.inf, 1.0, 1.0)
    bounded = of_group(weight_norm_bounds=(0.5, 10.0), trust_ratio_bounds=(0.0, 2.0))
    assert (bounded.weight_low, bounded.weight_high, bounded.ratio_low, bounded.ratio_high) == (0.5, 10.0, 0.0, 2.0)
    assert of_group(grad_averaging=False).beta3 == 1.0
    assert of_group(bias_correction=False).bias_correction == 0.0


@pytest.mark.parametrize(
    ("adapted", "weight_decay", "expected"), [("decayed", 0.0, 0), ("decayed", 0.1, 1), (True, 0.0, 1), (False, 0.1, 0)]
)
def test_a_group_is_adapted_always_never_or_where_it_decays(adapted: Any, weight_decay: float, expected: int) -> None:
    assert of_group(layer_adaptation=adapted, weight_decay=weight_decay).layer_adaptation == expected


def test_where_there_is_a_master_it_is_what_is_updated_and_the_parameter_its_copy() -> None:
    parameter, grad, exp_avg, exp_avg_sq, step, master = (torch.full((2,), float(i)) for i in range(6))
    state: dict[str, Tensor] = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, "step": step}
    plain = Ready(0, "w", parameter, grad, (), state).operand()
    assert (plain.weight is parameter, plain.copy) == (True, None)
    mixed = Ready(0, "w", parameter, grad, (), state | {"master": master}).operand()
    assert (mixed.weight is master, mixed.copy is parameter) == (True, True)
    for operand in (plain, mixed):
        assert all(a is b for a, b in zip(operand[1:5], (grad, exp_avg, exp_avg_sq, step), strict=True))
