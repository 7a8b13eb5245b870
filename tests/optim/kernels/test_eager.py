"""The promises of the operators that no whole step can show."""

import pytest
import torch
from torch import Tensor

from optim.kernels import eager
from optim.kernels.settings import Settings, table
from optim.reference import lamb_step
from tests.optim.oracle import make_tensors

SETTINGS = table(((Settings(beta3=1 - 0.9), 1),))


def bits(tensors: list[Tensor]) -> list[list[int]]:
    return [tensor.contiguous().view(-1).view(torch.int32).tolist() for tensor in tensors]


def make_lists(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], ...]:
    """Return one-tensor lists: gradient, weight, first moment, second moment, step."""
    g, w, m, v = (make_tensors([shape], seed, dtype)[0] for seed in range(4))
    return [g], [w], [m], [v.square()], [torch.tensor(4.0)]


def test_a_skipped_update_keeps_negative_zeros_and_every_other_bit() -> None:
    grads, weights, means, squares, steps = make_lists((2, 8), torch.float32)
    grads[0].fill_(float("nan"))
    means[0][0, :3] = torch.tensor([-0.0, 0.0, -1e-45])
    before = [bits(each) for each in (weights, means, squares, steps)]
    clip = torch.tensor([float("nan"), float("nan"), 1.0], dtype=torch.float64)
    eager.lamb_update(grads, weights, means, squares, [], steps, clip, SETTINGS)
    assert [bits(each) for each in (weights, means, squares, steps)] == before


def test_a_scale_of_zero_keeps_every_bit_whatever_the_update() -> None:
    _, weights, means, squares, steps = make_lists((2, 8), torch.float32)
    weights[0][0, :4] = torch.tensor([-0.0, 0.0, float("inf"), -1e-45])
    means[0][1] = float("nan")
    before = bits(weights)
    eager.lamb_apply(weights, [], means, squares, [], steps, torch.zeros(1, dtype=torch.float64), SETTINGS)
    assert bits(weights) == before


@pytest.mark.parametrize("transposed", [False, True])
def test_a_tensor_of_several_blocks_follows_the_oracle(transposed: bool) -> None:
    lists = make_lists((300, 401))
    assert lists[0][0].numel() > eager.BLOCK
    if transposed:
        lists = (*([tensor.t()] for (tensor,) in lists[:4]), lists[4])
    grads, weights, means, squares, steps = lists
    expected = lamb_step(weights[0], grads[0], means[0], squares[0], 5, lr=0.1)
    clip = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    sums = eager.lamb_update(grads, weights, means, squares, [], steps, clip, SETTINGS)
    assert sums.sqrt().flatten().tolist() == pytest.approx([expected.weight_norm, expected.update_norm], rel=1e-13)
    scale = torch.tensor([0.1 * expected.trust_ratio], dtype=torch.float64)
    eager.lamb_apply(weights, [], means, squares, [], steps, scale, SETTINGS)
    torch.testing.assert_close(weights[0], expected.weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(means[0], expected.exp_avg, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(squares[0], expected.exp_avg_sq, rtol=1e-13, atol=0)
