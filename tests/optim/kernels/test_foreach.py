"""Plain PyTorch by whole tensors, as accelerators without kernels of ours run it, held against the oracle on a CPU."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from optim import Lamb
from optim.kernels import eager, foreach, operators, settings
from optim.kernels.operands import Operand
from tests.optim.oracle import SWITCHES, Oracle, make_tensors
from tests.optim.test_lamb import NoReadBack

SHAPES = [(4, 3), (5,), (0,), (), (1023,), (7, 2, 3)]


@pytest.fixture(autouse=True)
def whole_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have plain PyTorch take whole tensors here, which it does everywhere but on a CPU, and a few in a bucket."""
    monkeypatch.setitem(operators.BACKENDS, "eager", lambda operand: foreach if foreach.takes(operand) else eager)
    monkeypatch.setattr(foreach, "BUCKET", 20)


def give_gradients(parameters: list[nn.Parameter], seed: int) -> list[Tensor]:
    grads = make_tensors([p.shape for p in parameters], seed, parameters[0].dtype)
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad.clone()
    return grads


@pytest.mark.parametrize("switches", [{}, *SWITCHES], ids=str)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_three_steps_follow_the_oracle_for_every_switch(
    switches: dict[str, Any], dtype: torch.dtype, rtol: float
) -> None:
    parameters = [nn.Parameter(start) for start in make_tensors(SHAPES, 0, dtype)]
    optimizer, oracle = Lamb(parameters, lr=0.05, backend="eager", **switches), Oracle(parameters)
    for step in (1, 2, 3):
        made = oracle.step(give_gradients(parameters, step), lr=0.05, **switches)
        optimizer.step()
        assert optimizer.last_step is not None
        ratios = torch.tensor([made[i].trust_ratio for i in range(len(SHAPES))], dtype=torch.float64)
        torch.testing.assert_close(optimizer.last_step.trust_ratio, ratios, rtol=rtol, atol=0)
    for i, parameter in enumerate(parameters):
        state = optimizer.state[parameter]
        for value, expected in (
            (parameter.detach(), oracle.weights[i]),
            (state["exp_avg"], oracle.exp_avgs[i]),
            (state["exp_avg_sq"], oracle.exp_avg_sqs[i]),
        ):
            torch.testing.assert_close(value.double(), expected, rtol=rtol, atol=rtol / 10)
        assert state["step"] == 3.0


def test_groups_keep_their_own_settings_in_one_bucket() -> None:
    own: dict[int, dict[str, Any]] = {
        0: {"betas": (0.8, 0.95), "weight_decay": 0.0},
        1: {"lr": 0.2, "eps": 0.1},
        2: {"layer_adaptation": False},
    }
    parameters = [nn.Parameter(start) for start in make_tensors([(3,), (4,), (5,)], 0)]
    groups = [{"params": [parameter], **own[i]} for i, parameter in enumerate(parameters)]
    optimizer, oracle = Lamb(groups, lr=0.05, backend="eager"), Oracle(parameters)
    for step in (1, 2):
        oracle.step(give_gradients(parameters, step), own, lr=0.05)
        optimizer.step()
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("master_weights", [True, False])
def test_half_precision_does_what_blocks_of_it_do(
    dtype: torch.dtype, master_weights: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train() -> list[Tensor]:
        parameters = [nn.Parameter(start) for start in make_tensors(SHAPES, 0, dtype)]
        optimizer = Lamb(parameters, lr=0.05, backend="eager", max_grad_norm=1.0, master_weights=master_weights)
        for step in (1, 2, 3):
            give_gradients(parameters, step)
            if step == 3:
                with torch.no_grad():
                    parameters[0][0] = 0.25  # somebody else writes to the copy of a master
            optimizer.step()
        return [parameter.detach() for parameter in parameters]

    ours = train()
    monkeypatch.setitem(operators.BACKENDS, "eager", lambda _: eager)
    for mine, theirs in zip(ours, train(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_no_bit(bad: float) -> None:
    parameters = [nn.Parameter(start) for start in make_tensors(SHAPES, 0, torch.float32)]
    optimizer = Lamb(parameters, backend="eager")
    give_gradients(parameters, 1)
    optimizer.step()
    negative_zero = torch.tensor([-0.0]).view(torch.int32)
    with torch.no_grad():
        parameters[1][0] = -0.0
    optimizer.state[parameters[1]]["exp_avg"][0] = -0.0
    every = [p.detach() for p in parameters] + [t for p in parameters for t in optimizer.state[p].values()]
    before = [tensor.clone().view(torch.int32) for tensor in every]
    give_gradients(parameters, 2)
    assert parameters[0].grad is not None
    parameters[0].grad[0, 0] = bad
    optimizer.step()
    assert all(torch.equal(now.view(torch.int32), then) for now, then in zip(every, before, strict=True))
    assert torch.equal(optimizer.state[parameters[1]]["exp_avg"][:1].view(torch.int32), negative_zero)


def test_a_step_reads_nothing_back_from_the_device() -> None:
    parameters = [nn.Parameter(start) for start in make_tensors(SHAPES, 0)]
    optimizer = Lamb(parameters, max_grad_norm=1.0, backend="eager")
    give_gradients(parameters, 1)
    with NoReadBack():  # type: ignore[no-untyped-call]
        optimizer.step()


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that an accelerator would start a kernel for; a view starts none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def launches(tensors: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(foreach, "BUCKET", 1 << 24)
    parameters = [nn.Parameter(start) for start in make_tensors([(3,)] * tensors, 0, torch.float32)]
    optimizer = Lamb(parameters, backend="eager")
    for step in (1, 2):
        give_gradients(parameters, step)
        if step == 1:
            optimizer.step()
    counted = Launches()
    with counted:
        optimizer.step()
    return counted.count


def test_a_tensor_more_costs_ten_launches_where_other_lambs_have_forty(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = launches(10, monkeypatch), launches(60, monkeypatch)
    assert (many - few) / 50 <= 10  # timm's Lamb: 18,324 for the 398 tensors of BERT-Large
    assert few <= 200


@pytest.mark.parametrize(
    ("device", "moment", "expected"),
    [
        ("meta", torch.float32, foreach),
        ("meta", torch.bfloat16, eager),
        ("cpu", torch.float32, eager),
    ],
)
def test_whole_tensors_are_for_accelerators_and_plain_moments(device: str, moment: torch.dtype, expected: Any) -> None:
    weight = torch.ones(3, device=device)
    operand = Operand(weight, weight, weight.to(moment), weight.to(moment), torch.tensor(1.0))
    assert operators.plain(operand) is expected


class NoFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses to compute in float64, as MPS does; the host may convert its own tables."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        views = torch.ops.aten.view.default, torch.ops.aten.detach.default, torch.ops.aten.slice.Tensor
        own = [*views, torch.ops.aten.lift_fresh.default]
        for each in made if isinstance(made, tuple | list) else [made]:
            assert func in own or getattr(each, "dtype", None) is not torch.float64, func
        return made


@pytest.mark.parametrize("moments", ["full", "8bit"])
def test_a_device_without_float64_steps_in_float32(moments: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "WITHOUT_FLOAT64", {"cpu"})
    parameters = [nn.Parameter(start) for start in make_tensors(SHAPES, 0, torch.float32)]
    oracle = Oracle(parameters)
    optimizer = Lamb(parameters, lr=torch.tensor(0.05), max_grad_norm=1.0, backend="eager", moments=moments)
    for step in (1, 2):
        oracle.step(give_gradients(parameters, step), lr=0.05, max_grad_norm=1.0)
        with NoFloat64():  # type: ignore[no-untyped-call]
            optimizer.step()
    tolerance = {"full": 1e-5, "8bit": 0.05}[moments]
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        far = (parameter.detach().double() - expected).abs() > tolerance * (0.1 + expected.abs())
        # A small moment in a block of larger ones can be rounded by more than it is.
        assert far.sum() <= {"full": 0, "8bit": 0.002}[moments] * far.numel()
