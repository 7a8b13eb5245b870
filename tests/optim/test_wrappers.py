"""Lamb under the wrappers, schedulers and scalers of others, and what it refuses of them."""

import copy
import functools
import importlib
import io
import math
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim.lr_scheduler import OneCycleLR

from optim import Lamb
from tests.optim.oracle import Oracle, make_tensors
from tests.ranks import run_on_ranks


def take_step(parameters: Iterable[Tensor], optimizer: Any) -> None:
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


class Delegating(Lamb):
    """Hands on to another optimizer whatever it does not have itself, as wrappers do that must be of its class."""

    def __init__(self, inner: Lamb) -> None:  # without the base class's, which would make a second optimizer of it
        self.__dict__["inner"] = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def step(self, closure: Any = None, *, grad_norm: Any = None) -> Any:
        return self.__dict__["inner"].step(closure, grad_norm=grad_norm)


def test_a_wrapper_that_delegates_shows_the_last_step_of_what_it_wraps() -> None:
    inner = Lamb(nn.Linear(3, 2).parameters())
    wrapper = Delegating(inner)
    take_step(wrapper.param_groups[0]["params"], wrapper)
    assert wrapper.last_step is inner.last_step
    assert wrapper.last_step is not None
    assert wrapper.max_grad_norm is inner.max_grad_norm
    assert wrapper.describe() == inner.describe()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])  # noqa: S301
def test_a_copy_has_the_attributes_of_the_original(duplicate: Any) -> None:
    optimizer = Lamb(nn.Linear(3, 2).named_parameters())
    assert duplicate(optimizer).last_step is None
    take_step(optimizer.param_groups[0]["params"], optimizer)
    copied = duplicate(optimizer)
    adamw = torch.optim.AdamW(nn.Linear(3, 2).named_parameters())
    assert set(vars(optimizer)) - set(vars(copied)) == set(vars(adamw)) - set(vars(duplicate(adamw)))
    assert copied.last_step.names == ("weight", "bias")
    assert optimizer.last_step is not None
    assert torch.equal(copied.last_step.trust_ratio, optimizer.last_step.trust_ratio)


def test_a_scheduler_that_holds_the_optimizer_is_saved_and_copied_with_it() -> None:
    model = nn.Linear(3, 2)
    optimizer = Lamb(model.named_parameters())
    schedule = OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    for _ in range(3):
        take_step(model.parameters(), optimizer)
        schedule.step()
    torch.save(schedule.state_dict(), io.BytesIO())
    copied = copy.deepcopy(schedule)
    assert copied.get_last_lr() == schedule.get_last_lr() == [optimizer.param_groups[0]["lr"]]
    assert 0.85 < optimizer.param_groups[0]["betas"][0] < 0.95  # its momentum cycles too
    take_step(model.parameters(), optimizer)


def test_what_a_scheduler_added_to_the_groups_survives_a_load_from_adamw() -> None:
    model = nn.Linear(3, 2)
    adamw = torch.optim.AdamW(model.named_parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(adamw)
    take_step(model.parameters(), adamw)
    schedule.step()
    optimizer = Lamb(model.named_parameters(), lr=0.7)
    optimizer.load_state_dict(adamw.state_dict())
    (group,) = optimizer.param_groups
    assert group["initial_lr"] == 0.1
    assert group["lr"] == adamw.param_groups[0]["lr"]
    assert not {"amsgrad", "maximize", "fused", "foreach", "capturable", "decoupled_weight_decay"} & group.keys()
    torch.optim.lr_scheduler.LinearLR(optimizer, last_epoch=1)  # needs initial_lr


def test_a_rate_in_a_tensor_is_not_shared_with_the_state_that_it_was_loaded_from() -> None:
    model = nn.Linear(3, 2)
    saved = Lamb(model.parameters(), lr=torch.tensor(0.25))
    loading = Lamb(model.parameters(), lr=torch.tensor(0.5))
    loading.load_state_dict(saved.state_dict())
    loading.param_groups[0]["lr"].fill_(0.75)
    assert saved.param_groups[0]["lr"] == 0.25


def test_a_gradient_scaler_unscales_and_steps() -> None:
    (start,), (grad,) = make_tensors([(4, 3)], 0, torch.float32), make_tensors([(4, 3)], 1, torch.float32)
    scaled, plain = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer, scaler = Lamb([scaled], max_grad_norm=1.0), torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale((scaled * grad).sum()).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    plain.grad = grad
    Lamb([plain], max_grad_norm=1.0).step()
    assert torch.equal(scaled, plain)


def flatten(use_orig_params: bool, wrap_first: bool) -> str:
    """Return what Lamb says to parameters of FSDP1, when it is built or at its step."""
    model: nn.Module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    optimizer = None if wrap_first else Lamb(model.named_parameters())
    sharded = FullyShardedDataParallel(model, use_orig_params=use_orig_params, device_id=torch.device("cpu"))
    sharded(torch.ones(2, 4)).sum().backward()
    with pytest.raises(ValueError, match=r"is flattened by FSDP1") as raised:
        (optimizer or Lamb(sharded.named_parameters())).step()
    return str(raised.value)


@pytest.mark.parametrize(("use_orig_params", "wrap_first"), [(True, True), (False, True), (True, False)])
def test_parameters_of_fsdp1_are_refused_with_the_remedy(use_orig_params: bool, wrap_first: bool) -> None:
    for message in run_on_ranks(2, flatten, use_orig_params, wrap_first):
        assert message.startswith("parameter '")
        assert "FullyShardedDataParallel" in message
        assert "use FSDP2 (torch.distributed.fsdp.fully_shard)" in message


COPIED: dict[str, Any] = {"max_grad_norm": 0.1, "skip_nonfinite": True, "grad_averaging": False, "moments": "full"}


def under_zero(
    parameters: Iterable[nn.Parameter], make: Callable[..., Lamb] = Lamb, **settings: Any
) -> torch.optim.Optimizer:
    # Its import warns of what torch itself uses, which pytest would make an error of this module.
    zero = importlib.import_module("torch.distributed.optim").ZeroRedundancyOptimizer
    optimizer: torch.optim.Optimizer = zero(parameters, optimizer_class=make, **settings)
    return optimizer


def step_under_zero() -> tuple[Tensor, Tensor]:
    """Return a weight after two steps of Lamb in ZeroRedundancyOptimizer, with a load between, and of Lamb alone."""
    (start,) = make_tensors([(4, 3)], 0)
    wrapped, alone = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    zero, lamb = under_zero([wrapped], lr=0.05, **COPIED), Lamb([alone], lr=0.05, **COPIED)
    for step in (1, 2):
        for parameter, optimizer in ((wrapped, zero), (alone, lamb)):
            (parameter.grad,) = make_tensors([(4, 3)], step)
            optimizer.step()
        zero.consolidate_state_dict()  # type: ignore[attr-defined]
        zero.load_state_dict(zero.state_dict())
    return wrapped.detach(), alone.detach()


def test_settings_that_a_wrapper_copies_into_groups_are_accepted_on_one_rank() -> None:
    ((wrapped, alone),) = run_on_ranks(1, step_under_zero)
    assert torch.equal(wrapped, alone)


def refuse_zero() -> str:
    with pytest.raises(ValueError, match="ZeroRedundancyOptimizer") as raised:
        under_zero(nn.Linear(3, 3).parameters(), lr=0.05, max_grad_norm=0.1)
    return str(raised.value)


def test_settings_that_a_wrapper_copies_into_groups_are_refused_on_more_ranks_with_the_remedy() -> None:
    for message in run_on_ranks(2, refuse_zero):
        assert message.startswith("max_grad_norm=0.1 in a parameter group, on one of 2 ranks")
        assert "functools.partial(Lamb, process_group=torch.distributed.group.WORLD)" in message
        assert message.endswith("or use FSDP2")


def train_under_zero(copies_settings: bool) -> tuple[list[Tensor], list[float]]:
    """Take two steps of clipping Lamb in ZeroRedundancyOptimizer, and one with a NaN on rank 0; return the weights."""
    parameters = [nn.Parameter(start) for start in make_tensors(ZERO_SHAPES, 0)]
    settings: dict[str, Any] = {"max_grad_norm": 0.5}
    make = functools.partial(Lamb, process_group=dist.group.WORLD, **({} if copies_settings else settings))
    zero: Any = under_zero(parameters, make, lr=0.05, **(settings if copies_settings else {}))
    norms = []
    for step in (1, 2, 3):
        for parameter, grad in zip(parameters, make_tensors(ZERO_SHAPES, step), strict=True):
            parameter.grad = grad if step < 3 else torch.full_like(grad, math.nan) if parameter.dim() == 1 else grad
        zero.step()
        norms.append(zero.optim.last_step.grad_norm.item())
    return [parameter.detach() for parameter in parameters], norms


ZERO_SHAPES = [(6, 5), (7, 3), (4,)]


@pytest.mark.parametrize("copies_settings", [False, True])
def test_zero_1_with_a_process_group_clips_and_skips_as_one_process_does(copies_settings: bool) -> None:
    oracle = Oracle(make_tensors(ZERO_SHAPES, 0))
    for step in (1, 2):
        oracle.step(make_tensors(ZERO_SHAPES, step), lr=0.05, max_grad_norm=0.5)
    for weights, norms in run_on_ranks(2, train_under_zero, copies_settings):
        for weight, expected in zip(weights, oracle.weights, strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-12, atol=1e-14)
        assert norms[0] == pytest.approx(torch.cat([g.flatten() for g in make_tensors(ZERO_SHAPES, 1)]).norm().item())
        assert math.isnan(norms[2])


def test_torch_compile_gives_the_same_bits_with_one_graph_break() -> None:
    def take_steps(compiles: bool) -> list[Tensor]:
        parameters = [nn.Parameter(start) for start in make_tensors([(4, 3), (5,)], 0)]
        optimizer = Lamb(parameters, max_grad_norm=0.5)
        step = torch.compile(optimizer.step, backend="eager") if compiles else optimizer.step
        for number in (1, 2, 3):
            optimizer.param_groups[0]["lr"] = 0.1 / number
            for parameter, grad in zip(parameters, make_tensors([(4, 3), (5,)], number), strict=True):
                parameter.grad = grad
            step()
        return [parameter.detach() for parameter in parameters]

    torch._dynamo.reset()
    breaks = torch._dynamo.utils.counters["graph_break"]
    breaks.clear()
    compiled = take_steps(compiles=True)
    assert sum(breaks.values()) == 1
    assert all(map(torch.equal, compiled, take_steps(compiles=False)))
