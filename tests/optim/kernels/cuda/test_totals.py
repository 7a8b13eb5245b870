"""What lies between the kernels that stream: sums, norms, the clipping factor and ratios."""

import math

import pytest
import torch

from optim.kernels.cuda import launch, tables, totals
from optim.kernels.operands import Operands
from tests.optim.kernels.cuda.cases import (
    float64,
    make_operands,
    whole_step,
)
from tests.optim.kernels.cuda.interpreted import DEVICE, on_device


@on_device
def test_a_tensor_of_zeros_has_ratio_one_and_moves_by_its_update() -> None:
    case = make_operands([(9,), (9,)], weight_decay=0.0)
    case.weights[0].zero_()
    for each in (case.grads, case.weights, case.exp_avgs):
        each[1].fill_(1.0 if each is case.weights else 0.0)
    norms = whole_step(case, float64(0.0, 1.0, 0.0))
    assert norms[2].tolist() == [1, 1]
    assert norms[0, 0] == 0 < norms[1, 0]
    assert norms[1, 1] == 0 < norms[0, 1]
    assert case.weights[0].abs().min() > 0
    assert (case.weights[1] == 1).all()


@on_device
def test_any_number_of_chunks_is_added_up() -> None:
    tensors = [torch.empty(n, device=DEVICE) for n in (1300, 0, 512, 3)]
    layout = tables.layout(Operands(grads=tensors), 1)  # chunks of one element
    partials = torch.arange(layout.chunks, dtype=torch.float64, device=DEVICE)
    out = float64(*[math.nan] * 4)
    launch._launch(totals.total_squares, 4, layout.table, partials, out, 4, CHUNK=1)
    assert out.tolist() == [sum(range(1300)), 0, sum(range(1301, 1813)), sum(range(1813, 1816))]


@pytest.mark.parametrize("count", [1, 511, 512, 513, 1300])
@pytest.mark.parametrize("max_grad_norm", [0.0, 1e-3, 1e9])
@on_device
def test_gradients_are_clipped_to_the_norm_of_all(count: int, max_grad_norm: float) -> None:
    squares = torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    norm = math.sqrt(math.fsum(squares.tolist()))
    factor = min(1.0, max_grad_norm / norm) if max_grad_norm else 1.0
    clip = launch.lamb_clip(squares.to(DEVICE), max_grad_norm, True)
    assert clip.tolist() == pytest.approx([norm, factor, 0.0], rel=1e-14)


@pytest.mark.parametrize("value", [math.inf, math.nan])
@on_device
def test_a_norm_that_is_not_finite_skips_the_step_if_that_is_wanted(value: float) -> None:
    squares = float64(1.0, value)
    assert [launch.lamb_clip(squares, 1.0, wanted)[2].item() for wanted in (True, False)] == [1, 0]
    assert launch.lamb_clip(float64(1e308), 0.0, True)[2] == 0
