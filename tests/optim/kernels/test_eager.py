"""The promises of the operators that no whole step can show."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from optim import Lamb
from optim.kernels import eager
from optim.kernels.operands import Operands
from optim.kernels.settings import Settings, table
from optim.reference import lamb_step
from tests.optim.oracle import make_tensors

SETTINGS = table([Settings(beta3=1 - 0.9)])


def bits(tensors: list[Tensor]) -> list[list[int]]:
    return [tensor.contiguous().view(-1).view(torch.int32).tolist() for tensor in tensors]


def make_operands(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, *, transposed: bool = False) -> Operands:
    """Return one tensor at step 4."""
    g, w, m, v = (make_tensors([shape], seed, dtype)[0] for seed in range(4))
    w, g, m, v = (tensor.t() if transposed else tensor for tensor in (w, g, m, v.square()))
    return Operands([w], [g], [m], [v], [torch.tensor(4.0)], settings=SETTINGS)


def test_a_skipped_update_keeps_negative_zeros_and_every_other_bit() -> None:
    operands = make_operands((2, 8), torch.float32)
    operands.grads[0].fill_(float("nan"))
    operands.exp_avgs[0][0, :3] = torch.tensor([-0.0, 0.0, -1e-45])
    before = bits([*operands.weights, *operands.state])
    eager.lamb_update(operands, torch.tensor([float("nan"), float("nan"), 1.0], dtype=torch.float64))
    assert bits([*operands.weights, *operands.state]) == before


def test_a_scale_of_zero_keeps_every_bit_whatever_the_update() -> None:
    operands = make_operands((2, 8), torch.float32)
    operands.weights[0][0, :4] = torch.tensor([-0.0, 0.0, float("inf"), -1e-45])
    operands.exp_avgs[0][1] = float("nan")
    before = bits(operands.weights)
    eager.lamb_apply(operands, torch.zeros(1, dtype=torch.float64))
    assert bits(operands.weights) == before


@pytest.mark.parametrize("transposed", [False, True])
def test_copies_that_somebody_else_wrote_become_the_weights_unless_the_step_is_skipped(transposed: bool) -> None:
    operands = make_operands((300, 401), torch.float32, transposed=transposed)
    (weight,) = operands.weights
    operands.copies = [weight.bfloat16()]
    operands.copies[0][::3] += 1
    skipped, before = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64), weight.clone()
    eager.lamb_update(operands, skipped)
    assert torch.equal(weight, before)
    before[::3] = operands.copies[0][::3].float()
    sums_2T = eager.lamb_update(operands, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert torch.equal(weight, before)
    assert sums_2T[0].item() == pytest.approx(before.double().square().sum().item())


@pytest.mark.parametrize("transposed", [False, True])
def test_a_tensor_of_several_blocks_follows_the_oracle(transposed: bool) -> None:
    operands = make_operands((300, 401), transposed=transposed)
    assert operands.numels[0] > eager.CPU_BLOCK
    (weight,), (grad,), (mean,), (square,) = operands.weights, operands.grads, operands.exp_avgs, operands.exp_avg_sqs
    expected = lamb_step(weight, grad, mean, square, 5, lr=0.1)
    sums = eager.lamb_update(operands, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert sums.sqrt().flatten().tolist() == pytest.approx([expected.weight_norm, expected.update_norm], rel=1e-13)
    eager.lamb_apply(operands, torch.tensor([0.1 * expected.trust_ratio], dtype=torch.float64))
    torch.testing.assert_close(weight, expected.weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mean, expected.exp_avg, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(square, expected.exp_avg_sq, rtol=1e-13, atol=0)


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that would each launch a kernel: all but views and allocations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or func.name().startswith("aten::empty"))
        return func(*args, **(kwargs or {}))


def launches(elements: int, moments: Any, device: str) -> int:
    """Return how many a step has on a device without kernels of ours, for one tensor of so many elements."""
    parameter = nn.Parameter(torch.ones(elements, device=device))
    parameter.grad = torch.ones_like(parameter)
    optimizer = Lamb([parameter], moments=moments, max_grad_norm=1.0, backend="eager")
    optimizer.step()
    counted = Launches()
    with counted:
        optimizer.step()
    return counted.count


@pytest.mark.parametrize("moments", ["full", "bfloat16", "8bit"])
def test_on_an_accelerator_a_tensor_costs_the_same_launches_whatever_its_size(moments: str) -> None:
    small, large = (launches(elements, moments, "meta") for elements in (10, 10 * eager.CPU_BLOCK))
    assert small == large <= 400
    assert launches(10 * eager.CPU_BLOCK, moments, "cpu") > 2 * launches(10, moments, "cpu")


def test_on_an_accelerator_what_is_made_on_the_way_is_bounded() -> None:
    assert launches(2 * eager.DEVICE_BLOCK, "8bit", "meta") > launches(eager.DEVICE_BLOCK, "8bit", "meta")
