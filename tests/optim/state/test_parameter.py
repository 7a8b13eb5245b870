"""The state of a parameter in every format, saved and loaded on one rank."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optim import Lamb
from tests.optim.oracle import Oracle, make_tensors
from tests.optim.state.optimizers import SHAPES, foreign_state, make, parameters_of, take_steps


@pytest.mark.parametrize("moments", ["full", "bfloat16", "8bit"])
def test_a_state_laid_out_otherwise_is_loaded_element_by_element(moments: Any) -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    grad = weight.flip(0).contiguous()
    stepped: list[Tensor] = []
    for layout in (torch.contiguous_format, torch.channels_last):
        first = nn.Parameter(weight.clone().to(memory_format=layout))
        first.grad = grad.clone()
        saved = Lamb([first])
        saved.step()
        then = nn.Parameter(weight.clone())
        loading = Lamb([then], moments=moments)
        loading.load_state_dict(saved.state_dict())
        then.grad = grad.clone()
        loading.step()
        stepped.append(then.detach())
    torch.testing.assert_close(stepped[0], stepped[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("missing", ["exp_avg", "exp_avg_sq", "step"])
@pytest.mark.parametrize("empty", [False, True], ids=["absent", "empty"])
def test_a_state_without_an_entry_is_refused_by_name(missing: str, empty: bool) -> None:
    saved = foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.05)
    entries = saved["param_groups"][0] if missing == "step" else saved["state"][1]
    del entries[missing]
    if empty:  # so torch fills in what a flattened state lacks
        entries[missing] = {}
    with pytest.raises(ValueError, match=rf"the state of parameter '[01]' has no '{missing}'"):
        make().load_state_dict(saved)


def test_empty_scales_that_torch_fills_in_are_not_loaded() -> None:
    optimizer = make(torch.float32, moments="8bit")
    take_steps(optimizer, 1, 1)
    expected, saved = optimizer.state_dict(), optimizer.state_dict()
    for entries in saved["state"].values():
        entries |= {"exp_avg_scale": {}, "exp_avg_sq_scale": {}}  # of a flattened state, which has none
    other = make(torch.float32, moments="8bit")
    other.load_state_dict(saved)
    torch.testing.assert_close(other.state_dict()["state"], expected["state"], rtol=0, atol=0)


def test_a_misshapen_state_is_refused_with_both_shapes() -> None:
    saved = foreign_state(Oracle(make_tensors(SHAPES, 0)), lr=0.05)
    saved["state"][1]["exp_avg"] = torch.zeros(8)
    optimizer = make()
    with pytest.raises(
        ValueError, match=r"exp_avg of parameter '1' has shape \(8,\) in the state.*parameter has \(7,\)"
    ):
        optimizer.load_state_dict(saved)
    assert not optimizer.state


@pytest.mark.parametrize("moments", ["full", "bfloat16", "8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stop_save_load_and_go_on_is_bit_identical_in_every_format(moments: str, dtype: torch.dtype) -> None:
    switches: dict[str, Any] = {"moments": moments, "master_weights": True}
    straight = make(dtype, **switches)
    take_steps(straight, 1, 3)
    other = make(dtype, **switches)
    for parameter, weight in zip(parameters_of(other), parameters_of(straight), strict=True):
        parameter.data.copy_(weight)
    other.load_state_dict(copy.deepcopy(straight.state_dict()))
    take_steps(straight, 4, 6)
    take_steps(other, 4, 6)
    for mine, theirs in zip(parameters_of(straight), parameters_of(other), strict=True):
        assert torch.equal(mine, theirs)
        assert straight.state[mine].keys() == other.state[theirs].keys()
        for key, entry in straight.state[mine].items():
            assert entry.dtype is other.state[theirs][key].dtype
            assert torch.equal(entry, other.state[theirs][key]), key


def test_a_state_is_loaded_into_another_format() -> None:
    full = make(torch.float32)
    take_steps(full, 1, 3)
    narrow = make(torch.float32, moments="8bit")
    narrow.load_state_dict(full.state_dict())
    for i, own in narrow.state_dict()["state"].items():
        expected = full.state[parameters_of(full)[i]]["exp_avg"]
        assert (own["exp_avg"] - expected).abs().max() <= 0.02 * expected.abs().max()
        assert own["step"] == 3
