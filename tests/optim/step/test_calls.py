"""Which tensors go into one call, and for how long calls are kept."""

import copy
import gc
import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from optim import Lamb
from optim.kernels import eager
from optim.kernels.cpu import call as cpu
from optim.reference import lamb_step
from optim.step.calls import Calls
from tests.optim.gradients import set_gradient
from tests.optim.oracle import Oracle, make_tensors

SHAPES = [(4, 3), (5,), (6,)]


def make(dtype: torch.dtype = torch.float64, **switches: Any) -> tuple[list[nn.Parameter], Lamb]:
    """Return parameters in two groups and an optimizer that has taken a step."""
    parameters = [nn.Parameter(tensor) for tensor in make_tensors(SHAPES, 0, dtype)]
    give_gradients(parameters, 1)
    optimizer = Lamb([{"params": parameters[:2]}, {"params": parameters[2:]}], lr=0.05, **switches)
    optimizer.step()
    return parameters, optimizer


def give_gradients(parameters: list[nn.Parameter], seed: int) -> list[Tensor]:
    """Set new gradients and return copies."""
    gradients = [g.to(p.dtype) for g, p in zip(make_tensors(SHAPES, seed), parameters, strict=True)]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return gradients


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect how many tensors calls are built of."""
    built: list[int] = []
    original = Calls.built

    def note(calls: Calls, step: Any, ready: Any) -> Any:
        built.append(len(ready))
        return original(calls, step, ready)

    monkeypatch.setattr(Calls, "built", note)
    return built


def test_calls_are_built_once_while_gradients_rates_and_settings_change(builds: list[int]) -> None:
    parameters, optimizer = make()
    oracle = Oracle(make_tensors(SHAPES, 0))
    oracle.step(make_tensors(SHAPES, 1), lr=0.05)
    for step in range(2, 5):
        own: dict[str, Any] = {"lr": 0.1 / step, "betas": (0.8 + step / 100, 0.99), "weight_decay": step / 100}
        for group in optimizer.param_groups:
            group.update(own)
        oracle.step(give_gradients(parameters, step), **own)
        optimizer.step()
    assert builds == [3]
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)


def without_a_gradient(parameters: list[nn.Parameter], _: Lamb) -> None:
    parameters[1].grad = None


def with_another_dtype_of_gradient(parameters: list[nn.Parameter], _: Lamb) -> None:
    gradient = parameters[1].grad
    assert gradient is not None
    set_gradient(parameters[1], gradient.float())


def with_other_strides_of_a_gradient(parameters: list[nn.Parameter], _: Lamb) -> None:
    parameters[0].grad = parameters[0].grad.t().contiguous().t()  # type: ignore[union-attr]


def with_other_strides_of_a_weight(parameters: list[nn.Parameter], _: Lamb) -> None:
    parameters[0].data = parameters[0].detach().t().contiguous().t()


def with_weights_of_another_dtype(parameters: list[nn.Parameter], _: Lamb) -> None:
    for parameter in parameters:
        parameter.grad = None
        parameter.data = parameter.detach().float()
    give_gradients(parameters, 2)


def with_another_moment(parameters: list[nn.Parameter], optimizer: Lamb) -> None:
    state = optimizer.state[parameters[0]]
    state["exp_avg"] = state["exp_avg"].clone()


def with_a_loaded_state(_: list[nn.Parameter], optimizer: Lamb) -> None:
    optimizer.load_state_dict(optimizer.state_dict())


def with_a_later_group(_: list[nn.Parameter], optimizer: Lamb) -> None:
    later = nn.Parameter(torch.ones(2, dtype=torch.float64))
    later.grad = torch.ones_like(later)
    optimizer.add_param_group({"params": [later]})


def with_parameters_in_another_order(_: list[nn.Parameter], optimizer: Lamb) -> None:
    optimizer.param_groups[0]["params"].reverse()


def with_another_backend(_: list[nn.Parameter], optimizer: Lamb) -> None:
    optimizer.backend = "eager"


@pytest.mark.parametrize(
    "change",
    [
        without_a_gradient,
        with_another_dtype_of_gradient,
        with_other_strides_of_a_gradient,
        with_other_strides_of_a_weight,
        with_weights_of_another_dtype,
        with_a_later_group,
        with_parameters_in_another_order,
        with_another_backend,
    ],
)
def test_calls_are_built_anew_where_a_tensor_or_group_is_no_longer_what_it_was(
    change: Callable[[list[nn.Parameter], Lamb], None], builds: list[int]
) -> None:
    parameters, optimizer = make()
    give_gradients(parameters, 2)
    change(parameters, optimizer)
    own = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    before = [
        (p.detach().clone(), p.grad.clone(), *(optimizer.state[p][key].clone() for key in ("exp_avg", "exp_avg_sq")))
        if p in optimizer.state
        else (p.detach().clone(), p.grad.clone(), torch.zeros_like(p), torch.zeros_like(p))
        for p in own
    ]
    steps = [int(optimizer.state[p]["step"]) if p in optimizer.state else 0 for p in own]
    optimizer.step()
    assert builds == [3, len(own)]
    for parameter, (weight, grad, mean, square), step in zip(own, before, steps, strict=True):
        made = lamb_step(weight, grad, mean, square, step + 1, lr=0.05)
        torch.testing.assert_close(parameter.detach().double(), made.weight, rtol=1e-6, atol=1e-7)
    optimizer.step()
    lies_otherwise = any(p.grad.stride() != p.stride() for p in own)  # such a gradient is copied in each step
    assert len(builds) == (3 if lies_otherwise else 2)


@pytest.mark.parametrize("change", [with_another_moment, with_a_loaded_state])
def test_other_moments_of_the_same_kind_are_taken_by_the_calls_that_are_there(
    change: Callable[[list[nn.Parameter], Lamb], None], builds: list[int]
) -> None:
    parameters, optimizer = make()
    oracle = Oracle(make_tensors(SHAPES, 0))
    oracle.step(make_tensors(SHAPES, 1), lr=0.05)
    held = optimizer.state[parameters[0]]["exp_avg"]
    before = held.clone()
    change(parameters, optimizer)
    oracle.step(give_gradients(parameters, 2), lr=0.05)
    optimizer.step()
    assert builds == [3]
    assert torch.equal(held, before)
    assert optimizer.state[parameters[0]]["exp_avg"] is not held
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)


def python_calls(function: Callable[[], object]) -> int:
    """Return how many functions and comprehensions in Python a call enters."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event == "call"

    gc.disable()  # Hypothesis has a function called before and after each collection, whenever that is
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def calls_of_a_step(tensors: int, groups: int, mesh: DeviceMesh | None, dtype: torch.dtype, **switches: Any) -> int:
    """Return what the second step with other gradients and another rate comes to."""
    values = [torch.ones(4, dtype=dtype) for _ in range(tensors)]
    placed = [value if mesh is None else distribute_tensor(value, mesh, [Shard(0)]) for value in values]
    parameters = [nn.Parameter(value) for value in placed]
    optimizer = Lamb([{"params": parameters[number::groups]} for number in range(groups)], **switches)
    specs = [getattr(parameter, "_spec", None) for parameter in parameters]  # FSDP2 gives them to gradients too
    for number in range(3):
        for parameter, value, spec in zip(parameters, values, specs, strict=True):
            grad = value.clone()
            parameter.grad = DTensor(grad, spec, requires_grad=False) if spec else grad  # type: ignore[no-untyped-call]
        optimizer.param_groups[0]["lr"] = 0.1 + number
        count = python_calls(optimizer.step)
    return count


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("is_placed", [False, True])
@pytest.mark.parametrize(
    ("dtype", "switches"),
    [
        (torch.float32, {}),
        (torch.float32, {"moments": "8bit"}),
        (torch.bfloat16, {"master_weights": True, "max_grad_norm": 1.0}),
    ],
)
def test_an_untouched_step_calls_no_function_in_python_for_each_tensor(
    groups: int, is_placed: bool, dtype: torch.dtype, switches: dict[str, Any], mesh: DeviceMesh
) -> None:
    _, few, many = (  # what the first one of all does is remembered by torch
        calls_of_a_step(tensors, groups, mesh if is_placed else None, dtype, **switches) for tensors in (4, 4, 12)
    )
    assert few == many


def test_weights_that_lie_elsewhere_are_stepped_where_they_lie(builds: list[int]) -> None:
    parameters, optimizer = make()
    left = [parameter.data for parameter in parameters]
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.data = parameter.detach().clone()
    give_gradients(parameters, 2)
    optimizer.step()
    assert builds == [3]
    for parameter, old, was in zip(parameters, left, before, strict=True):
        assert torch.equal(old, was)
        assert not torch.equal(parameter.detach(), was)


def test_nothing_that_a_user_frees_between_steps_is_kept_alive() -> None:
    parameters, optimizer = make(torch.bfloat16, master_weights=True)
    held = [weakref.ref(p.grad) for p in parameters if p.grad is not None]
    held += [weakref.ref(entry) for p in parameters for entry in optimizer.state[p].values()]
    optimizer.zero_grad()
    optimizer.state.clear()
    gc.collect()
    assert [reference() for reference in held] == [None] * (3 + 3 * 4)


def test_tensors_that_the_kernel_cannot_read_are_stepped_by_plain_pytorch_beside_the_others() -> None:
    tensors = make_tensors([(4, 6), (30, 41), (9,), (20, 30)], 0)
    tensors[1], tensors[2] = tensors[1].t(), tensors[2][::2]
    parameters = [nn.Parameter(tensor) for tensor in tensors]
    for parameter, gradient in zip(parameters, make_tensors([p.shape for p in parameters], 1), strict=True):
        parameter.grad = gradient
    optimizer, oracle = Lamb(parameters, lr=0.05, max_grad_norm=1.0), Oracle(parameters)
    chosen = [call.kernels for call in optimizer._present_calls()]
    oracle.step([parameter.grad for parameter in parameters], lr=0.05, max_grad_norm=1.0)
    optimizer.step()
    assert chosen == [cpu, eager]
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)


def test_rates_of_one_tensor_and_of_numbers_go_to_their_own_groups(builds: list[int]) -> None:
    parameters, optimizer = make()
    oracle = Oracle(make_tensors(SHAPES, 0))
    oracle.step(make_tensors(SHAPES, 1), lr=0.05)
    rate = torch.tensor(0.5, dtype=torch.float64)
    optimizer.param_groups[1]["lr"] = rate
    for step, lr in ((2, 0.25), (3, 0.125)):
        rate.fill_(lr)
        oracle.step(give_gradients(parameters, step), {2: {"lr": lr}}, lr=0.05)
        optimizer.step()
    assert builds == [3]
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)


def test_a_parameter_moved_to_the_next_group_takes_its_settings(builds: list[int]) -> None:
    parameters, optimizer = make()
    oracle = Oracle(make_tensors(SHAPES, 0))
    oracle.step(make_tensors(SHAPES, 1), lr=0.05)
    first, second = optimizer.param_groups
    second["lr"] = 0.5
    second["params"].insert(0, first["params"].pop())  # all parameters are still in the same order
    oracle.step(give_gradients(parameters, 2), {0: {"lr": 0.05}}, lr=0.5)
    optimizer.step()
    assert builds == [3, 3]
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])  # noqa: S301
def test_a_copy_of_an_optimizer_steps_tensors_of_its_own(duplicate: Callable[[Lamb], Lamb]) -> None:
    parameters, optimizer = make()
    before = [parameter.detach().clone() for parameter in parameters]
    copied = duplicate(optimizer)
    own = [parameter for group in copied.param_groups for parameter in group["params"]]
    give_gradients(own, 2)
    copied.step()
    assert all(torch.equal(parameter.detach(), was) for parameter, was in zip(parameters, before, strict=True))
    give_gradients(parameters, 2)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(parameters, own, strict=True))


@pytest.mark.parametrize("moments", ["full", "8bit"])
def test_a_step_on_fake_tensors_leaves_nothing_to_another_optimizer(moments: Any) -> None:
    with FakeTensorMode():
        make(torch.float32, moments=moments)
    parameters, _ = make(torch.float32, moments=moments)
    for parameter, was in zip(parameters, make_tensors(SHAPES, 0, torch.float32), strict=True):
        assert type(parameter.data) is Tensor
        assert not torch.equal(parameter.detach(), was)


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_settings_and_rates_stay_with_their_tensors_where_gradients_come_and_go(backend: str, as_tensor: bool) -> None:
    rates = [torch.tensor(rate) if as_tensor else rate for rate in (0.05, 0.2, 0.01)]
    groups = [{"lr": rate, "weight_decay": decay} for rate, decay in zip(rates, (0.0, 0.5, 0.1), strict=True)]
    together, apart = ([nn.Parameter(tensor) for tensor in make_tensors([(6,)] * 3, 0, torch.float32)] for _ in "ab")
    shared = Lamb([{"params": [p]} | group for p, group in zip(together, groups, strict=True)], backend=backend)
    own = [Lamb([{"params": [p]} | group], backend=backend) for p, group in zip(apart, groups, strict=True)]
    for step, present in enumerate([(0, 1), (1,), (1, 2), (0, 2), (0, 1, 2), (2,), (0, 1)]):
        gradients = make_tensors([(6,)] * 3, 1 + step, torch.float32)
        for number in range(3):
            together[number].grad = gradients[number].clone() if number in present else None
            apart[number].grad = gradients[number].clone()
        shared.step()
        for number in present:
            own[number].step()
    for mine, expected in zip(together, apart, strict=True):
        assert torch.equal(mine, expected)


def test_a_moment_that_becomes_strided_is_read_and_written_element_by_element() -> None:
    parameters, optimizer = make(torch.float32)
    give_gradients(parameters, 2)
    optimizer.step()
    moment = optimizer.state[parameters[1]]["exp_avg"]
    before = moment.clone()
    moment.data = torch.empty(2 * len(before))[::2].copy_(before)
    gradients = give_gradients(parameters, 3)
    optimizer.step()
    torch.testing.assert_close(moment, 0.9 * before + 0.1 * gradients[1])


def test_a_step_count_that_becomes_float64_is_counted_on() -> None:
    parameters, optimizer = make(torch.float32)
    for parameter in parameters:
        optimizer.state[parameter]["step"].data = torch.tensor(7.0, dtype=torch.float64)
    give_gradients(parameters, 2)
    optimizer.step()
    assert [optimizer.state[parameter]["step"].item() for parameter in parameters] == [8.0] * 3


def test_strides_of_a_gradient_that_mean_nothing_cost_no_call_of_its_own(builds: list[int]) -> None:
    parameters = [nn.Parameter(torch.ones(2, 1, 5, dtype=torch.float64)) for _ in range(2)]
    optimizer, oracle = Lamb(parameters, lr=0.05), Oracle(parameters)
    for step in range(3):
        gradients = make_tensors([(2, 1, 5)] * 2, step)
        parameters[0].grad = gradients[0].as_strided((2, 1, 5), (5, 1, 1))  # as a product of matrices leaves it
        parameters[1].grad = gradients[1]
        oracle.step(gradients, lr=0.05)
        optimizer.step()
    assert builds == [2]
    assert optimizer.last_step is not None
    assert len(optimizer.last_step.norms) == 1
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [3, 14])
def test_a_moment_that_gets_another_size_between_steps_is_refused(size: int) -> None:
    parameters, optimizer = make(torch.float32)
    give_gradients(parameters, 2)
    optimizer.step()
    optimizer.state[parameters[1]]["exp_avg"].data = torch.zeros(size)
    with pytest.raises(ValueError, match=rf"exp_avg of parameter '1' is \[{size}\]"):
        optimizer.step()
