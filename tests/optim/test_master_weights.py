"""Float32 master weights under half precision: they follow the oracle, and whatever else is written to the weights."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from optim import Lamb
from tests.optim.oracle import Oracle, make_tensors
from tests.ranks import run_on_ranks

SHAPES = [(13, 29), (7,), (300, 3)]
BACKENDS = ["auto", "eager"]
HALF = [torch.bfloat16, torch.float16]


def make_model(dtype: torch.dtype) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(tensor) for tensor in make_tensors(SHAPES, 0, dtype)])


def take_steps(model: nn.Module, optimizer: Lamb, *steps: int) -> None:
    for step in steps:
        for parameter, grad in zip(model.parameters(), make_tensors(SHAPES, step), strict=True):
            parameter.grad = grad.to(parameter.dtype)
        optimizer.step()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_with_master_weights_follows_the_oracle(dtype: torch.dtype, backend: str) -> None:
    model = make_model(dtype)
    optimizer = Lamb(model.parameters(), lr=0.05, master_weights=True, backend=backend, max_grad_norm=1.0)
    oracle = Oracle(list(model.parameters()))
    for step in range(1, 6):
        oracle.step([g.to(dtype) for g in make_tensors(SHAPES, step)], lr=0.05, max_grad_norm=1.0)
        take_steps(model, optimizer, step)
    for parameter, expected in zip(model.parameters(), oracle.weights, strict=True):
        master = optimizer.state[parameter]["master"]
        assert master.dtype is optimizer.state[parameter]["exp_avg"].dtype is torch.float32
        torch.testing.assert_close(master.double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(parameter.detach(), master.to(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_that_is_widened_moves_with_its_master_weights(backend: str) -> None:
    model = nn.Linear(4, 4).bfloat16()
    optimizer = Lamb(model.named_parameters(), lr=0.1, master_weights=True, backend=backend)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    model.float()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter in model.parameters():
        assert torch.equal(parameter, optimizer.state[parameter]["master"])
        assert optimizer.state[parameter]["step"] == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_steps_add_up_only_with_master_weights(backend: str) -> None:
    def moved(*, master_weights: bool) -> bool:
        parameter = nn.Parameter(torch.ones(64, dtype=torch.bfloat16))
        optimizer = Lamb([parameter], lr=1e-4, master_weights=master_weights, backend=backend)
        for _ in range(60):
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        return bool((parameter != 1).all())

    assert moved(master_weights=True)
    assert not moved(master_weights=False)


def other_weights(model: nn.Module) -> list[Tensor]:
    """Return weights of which none is what the model has: writing what is there already changes nothing."""
    weights = make_tensors(SHAPES, 77, next(model.parameters()).dtype)
    return [torch.where(w == p.detach(), w + 1, w) for w, p in zip(weights, model.parameters(), strict=True)]


def load(model: nn.Module, weights: list[Tensor]) -> None:
    model.load_state_dict(dict(zip(model.state_dict(), weights, strict=True)))


def copy_in_place(model: nn.Module, weights: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), weights, strict=True):
            parameter.copy_(weight)


def copy_data(model: nn.Module, weights: list[Tensor]) -> None:
    for parameter, weight in zip(model.parameters(), weights, strict=True):
        parameter.data.copy_(weight)


def assign_data(model: nn.Module, weights: list[Tensor]) -> None:
    for parameter, weight in zip(model.parameters(), weights, strict=True):
        parameter.data = weight.clone()


def write_vector(model: nn.Module, weights: list[Tensor]) -> None:
    nn.utils.vector_to_parameters(torch.cat([weight.flatten() for weight in weights]), model.parameters())


WRITERS = [load, copy_in_place, copy_data, assign_data, write_vector]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("write", WRITERS)
def test_weights_that_are_written_after_a_step_are_stepped_from(
    write: Callable[[nn.Module, list[Tensor]], None], dtype: torch.dtype, backend: str
) -> None:
    model = make_model(dtype)
    optimizer = Lamb(model.parameters(), lr=0.05, master_weights=True, backend=backend)
    oracle = Oracle(list(model.parameters()))
    take_steps(model, optimizer, 1)
    oracle.step([grad.to(dtype) for grad in make_tensors(SHAPES, 1)], lr=0.05)
    written = other_weights(model)
    write(model, written)
    oracle.weights = [weight.double() for weight in written]
    take_steps(model, optimizer, 2)
    made = oracle.step([grad.to(dtype) for grad in make_tensors(SHAPES, 2)], lr=0.05)
    assert optimizer.last_step is not None
    for i, (parameter, expected) in enumerate(zip(model.parameters(), oracle.weights, strict=True)):
        master = optimizer.state[parameter]["master"]
        torch.testing.assert_close(master.double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(parameter.detach(), master.to(dtype))
        assert optimizer.last_step.weight_norm[i].item() == pytest.approx(made[i].weight_norm, rel=1e-5)


@pytest.mark.parametrize("moments", ["full", "bfloat16", "8bit"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_are_swapped_out_and_back_lose_no_bit(backend: str, moments: Any) -> None:
    model = make_model(torch.bfloat16)
    optimizer = Lamb(model.parameters(), lr=0.05, master_weights=True, backend=backend, moments=moments)
    take_steps(model, optimizer, 1, 2)
    straight = copy.deepcopy((model, optimizer))
    own = [parameter.detach().clone() for parameter in model.parameters()]
    copy_data(model, other_weights(model))  # an average of the weights, to evaluate it
    copy_data(model, own)
    take_steps(model, optimizer, 3)
    take_steps(straight[0], straight[1], 3)
    for mine, theirs in zip(model.parameters(), straight[0].parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for key, entry in optimizer.state[mine].items():
            assert torch.equal(entry, straight[1].state[theirs][key]), key


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_elements_that_were_written_are_taken(backend: str) -> None:
    model = make_model(torch.bfloat16)
    optimizer = Lamb(model.parameters(), lr=0.05, master_weights=True, backend=backend)
    take_steps(model, optimizer, 1)
    masters = [optimizer.state[p]["master"].clone() for p in model.parameters()]
    assert not any(torch.equal(master, master.bfloat16().float()) for master in masters)
    for parameter, master in zip(model.parameters(), masters, strict=True):
        parameter.data.view(-1)[3::7] = 0.25
        master.view(-1)[3::7] = 0.25
    optimizer.param_groups[0]["lr"] = 0.0
    take_steps(model, optimizer, 2)
    for parameter, master in zip(model.parameters(), masters, strict=True):
        assert torch.equal(optimizer.state[parameter]["master"], master)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_skipped_step_leaves_what_was_written_and_the_next_one_steps_from_it(backend: str) -> None:
    model = make_model(torch.bfloat16)
    optimizer = Lamb(model.parameters(), lr=0.05, master_weights=True, backend=backend)
    take_steps(model, optimizer, 1)
    other = copy.deepcopy((model, optimizer))
    written = other_weights(model)
    for each in (model, other[0]):
        copy_data(each, written)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizer.step()
    assert all(torch.equal(p.detach(), weight) for p, weight in zip(model.parameters(), written, strict=True))
    take_steps(model, optimizer, 2)
    take_steps(*other, 2)
    assert all(map(torch.equal, model.parameters(), other[0].parameters()))


@pytest.mark.parametrize("state_first", [False, True])
def test_weights_and_state_are_loaded_in_either_order_without_losing_a_bit(state_first: bool) -> None:
    straight = make_model(torch.bfloat16)
    optimizer = Lamb(straight.parameters(), lr=0.05, master_weights=True)
    take_steps(straight, optimizer, 1, 2)
    resumed = make_model(torch.bfloat16)
    other = Lamb(resumed.parameters(), lr=0.05, master_weights=True)
    take_steps(resumed, other, 5)
    weights, state = straight.state_dict(), copy.deepcopy(optimizer.state_dict())
    for _ in range(2):
        if state_first:
            other.load_state_dict(state)
        else:
            resumed.load_state_dict(weights)
        state_first = not state_first
    take_steps(straight, optimizer, 3)
    take_steps(resumed, other, 3)
    for mine, theirs in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert torch.equal(optimizer.state[mine]["master"], other.state[theirs]["master"])


@pytest.mark.parametrize("master", [{}, {"master": {}}], ids=["absent", "empty"])  # empty: of a flattened state
def test_a_state_without_master_weights_is_stepped_from_the_weights_that_are_loaded_after_it(
    master: dict[str, Any],
) -> None:
    model = make_model(torch.bfloat16)
    saved = Lamb(model.parameters(), lr=0.05)
    take_steps(model, saved, 1)
    optimizer = Lamb(model.parameters(), lr=0.05, master_weights=True)
    state = saved.state_dict()
    for entries in state["state"].values():
        entries.update(master)
    optimizer.load_state_dict(state)
    written = other_weights(model)
    load(model, written)
    optimizer.param_groups[0]["lr"] = 1e-9
    take_steps(model, optimizer, 2)
    assert all(torch.equal(p.detach(), weight) for p, weight in zip(model.parameters(), written, strict=True))


def write_to_shards() -> tuple[list[Tensor], list[Tensor]]:
    """Return weights after a step, other weights and a step without a rate; and these other weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 7), nn.Linear(7, 2)).bfloat16()
    fully_shard(model, mesh=init_device_mesh("cpu", (3,)))
    optimizer = Lamb(model.named_parameters(), lr=0.05, max_grad_norm=1.0, master_weights=True)
    written = [torch.full(p.shape, 0.25 + i) for i, p in enumerate(model.parameters())]
    for step in (1, 2):
        model(make_tensors([(4, 9)], step, torch.bfloat16)[0]).square().mean().backward()
        optimizer.step()
        for parameter, weight in zip(model.parameters(), written, strict=True):
            assert isinstance(parameter, DTensor)
            parameter.to_local().data.fill_(weight.flatten()[0])
        optimizer.param_groups[0]["lr"] = 1e-9
    optimizer.step()
    return [p.full_tensor().float() for p in model.parameters() if isinstance(p, DTensor)], written


def test_shards_that_are_written_after_a_step_are_stepped_from() -> None:
    for weights, written in run_on_ranks(3, write_to_shards):
        for weight, expected in zip(weights, written, strict=True):
            assert torch.equal(weight, expected)
