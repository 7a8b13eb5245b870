"""States of other optimizers, which Lamb goes on with or refuses."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from optim import Lamb
from tests.optim.oracle import Oracle, make_tensors
from tests.optim.state.optimizers import APEX, SHAPES, TIMM, foreign_state, make, parameters_of, take_steps


@pytest.mark.parametrize("extra", [{}, TIMM], ids=["apex", "timm"])
def test_the_state_of_apex_and_timm_is_gone_on_with(extra: dict[str, Any]) -> None:
    oracle = Oracle(make_tensors(SHAPES, 0))
    settings: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.02, "max_grad_norm": 1.0}
    for step in (1, 2, 3):
        oracle.step(make_tensors(SHAPES, step), **settings)
    optimizer = Lamb([nn.Parameter(w.clone()) for w in oracle.weights], max_grad_norm=1.0)
    saved = foreign_state(oracle, lr=0.05, eps=1e-6, max_grad_norm=1.0, **APEX, **extra)
    before = copy.deepcopy(saved)
    optimizer.load_state_dict(saved)
    assert str(saved) == str(before)
    assert not TIMM.keys() & optimizer.param_groups[0].keys()
    assert optimizer.param_groups[0]["layer_adaptation"] is True
    take_steps(optimizer, 4, 5)
    assert str(saved) == str(before)
    for step in (4, 5):
        oracle.step(make_tensors(SHAPES, step), **settings)
    for weight, expected in zip(parameters_of(optimizer), oracle.weights, strict=True):
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("switch", "value"), [("bias_correction", False), ("grad_averaging", False), ("max_grad_norm", 1.0)]
)
def test_a_state_that_was_computed_otherwise_is_refused_with_the_remedy(switch: str, value: Any) -> None:
    saved = foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.1, **{switch: value})
    optimizer = make()
    with pytest.raises(ValueError, match=f"made with {switch}={value}.*build it with {switch}={value}"):
        optimizer.load_state_dict(saved)
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_timms_switches_become_settings_of_the_groups() -> None:
    optimizer = make()
    optimizer.load_state_dict(
        foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.1, **TIMM | {"always_adapt": False, "trust_clip": True})
    )
    (group,) = optimizer.param_groups
    assert (group["layer_adaptation"], group["trust_ratio_bounds"], group["lr"]) == ("decayed", (0.0, 1.0), 0.1)


@pytest.mark.parametrize("switch", ["caution", "decoupled_decay", "corrected_weight_decay", "amsgrad", "maximize"])
def test_a_state_of_something_that_lamb_does_not_compute_is_refused(switch: str) -> None:
    saved = foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.1, **{switch: True})
    optimizer = make()
    with pytest.raises(ValueError, match=f"made with {switch}=True, which Lamb does not compute: take '{switch}' out"):
        optimizer.load_state_dict(saved)
    assert not optimizer.state


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_a_count_in_a_tensor_of_one_element_is_a_count(backend: str) -> None:
    saved = foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.1)
    saved["param_groups"][0]["step"] = torch.tensor([3])
    optimizer = make(backend=backend)
    optimizer.load_state_dict(saved)
    take_steps(optimizer, 1, 1)
    assert {state["step"].item() for state in optimizer.state.values()} == {4.0}


@pytest.mark.parametrize("make_other", [torch.optim.AdamW, torch.optim.Adam])
def test_the_moments_of_torchs_own_optimizers_are_gone_on_with(make_other: Any) -> None:
    parameters = [nn.Parameter(tensor) for tensor in make_tensors(SHAPES, 0)]
    other = make_other(parameters, lr=0.05, weight_decay=0.0)
    for parameter, grad in zip(parameters, make_tensors(SHAPES, 1), strict=True):
        parameter.grad = grad
    other.step()
    optimizer = make(layer_adaptation=False)
    optimizer.load_state_dict(other.state_dict())
    for mine, theirs in zip(parameters_of(optimizer), parameters, strict=True):
        mine.data.copy_(theirs)
        assert torch.equal(optimizer.state[mine]["exp_avg"], other.state[theirs]["exp_avg"])
    take_steps(optimizer, 2, 3)
    for step in (2, 3):
        for parameter, grad in zip(parameters, make_tensors(SHAPES, step), strict=True):
            parameter.grad = grad
        other.step()
    for mine, theirs in zip(parameters_of(optimizer), parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_a_state_of_adam_with_weight_decay_in_the_gradients_is_refused() -> None:
    optimizer = make()
    saved = torch.optim.Adam(parameters_of(optimizer), weight_decay=0.02).state_dict()
    with pytest.raises(ValueError, match=r"made with weight_decay=0.02 in the gradients.*'decoupled_weight_decay' out"):
        optimizer.load_state_dict(saved)
