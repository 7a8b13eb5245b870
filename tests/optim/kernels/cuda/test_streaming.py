"""What the kernels that stream do to single elements, and how they sum squares."""

import math
from typing import Any

import pytest
import torch

from optim.kernels.cuda import launch
from tests.optim.kernels.cuda.cases import (
    HALF,
    LR,
    SHAPES,
    as_bits,
    both_passes,
    clip_of,
    clone,
    float64,
    make_operands,
    sum_squares,
    whole_step,
    written,
)
from tests.optim.kernels.cuda.interpreted import DEVICE, on_device
from tests.optim.oracle import make_tensors


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("half", HALF)
@on_device
def test_half_precision_is_a_unit_or_less_from_what_its_moments_say(half: torch.dtype, offset: int) -> None:
    case = make_operands([*SHAPES, (launch.CHUNK + 2,)], half, offset=offset)
    before = clone(case)
    norms = whole_step(case, float64(0.0, 0.5, 0.0))
    for i, (g, w) in enumerate(zip(before.grads, before.weights, strict=True)):
        first = 0.9 * before.exp_avgs[i].double() + 0.1 * 0.5 * g.double()
        second = 0.999 * before.exp_avg_sqs[i].double() + 0.001 * (0.5 * g.double()) ** 2
        m, v = case.exp_avgs[i].double(), case.exp_avg_sqs[i].double()  # u follows from the moments as they are stored
        u = m / (1 - 0.9**3) / ((v / (1 - 0.999**3)).sqrt() + 1e-6) + 0.01 * w.double()
        expected = first, second, w.double() - LR * norms[2, i] * u
        assert norms[1, i].item() == pytest.approx(float(u.norm()), rel=1e-6)
        for got, exact in zip((case.exp_avgs[i], case.exp_avg_sqs[i], case.weights[i]), expected, strict=True):
            unit = torch.nextafter(got.abs(), got.new_tensor(math.inf)).double() - got.abs().double()
            assert ((got.double() - exact).abs() <= unit + 1e-7).all()  # what float32 leaves of 0


@pytest.mark.parametrize("take", [whole_step, both_passes])
@pytest.mark.parametrize("half", HALF)
@on_device
def test_copies_that_somebody_else_wrote_become_the_weights(half: torch.dtype, take: Any) -> None:
    shapes = [(2, 8), (launch.CHUNK + 9,), (0,)]
    case, expected = (make_operands(shapes, torch.float32, half) for _ in range(2))
    for i, copy in enumerate(case.copies):
        copy.view(-1)[::3] += 1
        expected.copies[i].copy_(copy)
        expected.weights[i].view(-1)[::3] = copy.view(-1)[::3].float()
    clip = clip_of(case, 1.0)
    assert torch.equal(take(case, clip), take(expected, clip))
    assert as_bits(written(case)) == as_bits(written(expected))


@on_device
def test_a_scale_of_zero_keeps_every_bit_whatever_the_update() -> None:
    case = make_operands([(2, 8)], torch.float32, torch.bfloat16)
    case.weights[0][0, :4] = torch.tensor([-0.0, 0.0, math.inf, -1e-45], device=DEVICE)
    case.exp_avgs[0][1] = math.nan
    before = as_bits(written(case))
    launch.lamb_apply(case, float64(0.0))
    assert as_bits(written(case)) == before


@on_device
def test_a_tensor_that_was_never_stepped_is_applied_as_after_its_first_step() -> None:
    never, once = make_operands([(9,)]), make_operands([(9,)])
    never.steps[0].zero_()
    once.steps[0].fill_(1)
    for case in (never, once):
        launch.lamb_apply(case, float64(LR))
    assert as_bits(never.weights) == as_bits(once.weights) != as_bits(make_operands([(9,)]).weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
@on_device
def test_squares_are_summed_in_float64_whatever_the_dtype(dtype: torch.dtype) -> None:
    tensors = [x.to(DEVICE) for x in make_tensors([(1023,), (0,), (17, 3), (launch.CHUNK * 2 + 1,)], 5, dtype)]
    tensors[0][0] = 60000.0 if dtype is torch.float16 else 1e30
    expected = [math.fsum(x * x for x in tensor.flatten().tolist()) for tensor in tensors]
    torch.testing.assert_close(sum_squares(tensors), float64(*expected), rtol=1e-14, atol=0)


@on_device
def test_a_tensor_has_the_same_sum_alone_and_among_others() -> None:
    shapes = [(700,), (launch.CHUNK * 3 + 5,), (0,), (9, 9)]
    tensors = [tensor.to(DEVICE) for tensor in make_tensors(shapes, 6, torch.float32)]
    together = sum_squares(tensors)
    assert [sum_squares([tensor]).item() for tensor in tensors] == together.tolist()
