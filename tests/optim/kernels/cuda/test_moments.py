"""Narrow moments in the Triton kernels: rounded as in plain PyTorch, and the update is that of what is stored."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from optim.kernels import eager
from optim.kernels.cuda import launch
from optim.kernels.moments import BLOCK, FIRST, SECOND, decode, dynamic_map, encode
from optim.kernels.operands import Operands
from tests.optim.kernels.cuda.cases import (
    HALF,
    LR,
    as_bits,
    both_passes,
    clip_of,
    clone,
    float64,
    make_operands,
    rates,
    whole_step,
    written,
)
from tests.optim.kernels.cuda.interpreted import DEVICE, on_device

SHAPES = [(0,), (1,), (7,), (255,), (256,), (257,), (13, 29), (launch.CHUNK - 1,), (launch.CHUNK + 1,), (0, 3), (600,)]
FORMATS = ["bfloat16", "8bit"]


def narrow(case: Operands, moments: str) -> Operands:
    """Return a case of float32 with its moments in another format."""
    if moments == "bfloat16":
        first, second = ([tensor.bfloat16() for tensor in each] for each in (case.exp_avgs, case.exp_avg_sqs))
        return replace(case, exp_avgs=first, exp_avg_sqs=second)
    pairs = [encode(m.view(-1), FIRST) for m in case.exp_avgs], [encode(v.view(-1), SECOND) for v in case.exp_avg_sqs]
    codes = [[code.view(w.shape) for (code, _), w in zip(each, case.weights, strict=True)] for each in pairs]
    scales = [[scale for _, scale in each] for each in pairs]
    first, second = codes
    return replace(case, exp_avgs=first, exp_avg_sqs=second, first_scales=scales[0], second_scales=scales[1])


def stored(case: Operands, i: int) -> tuple[Tensor, Tensor]:
    """Return both moments of a tensor in float64."""
    m, v = case.exp_avgs[i], case.exp_avg_sqs[i]
    if case.first_scales:
        scales = case.first_scales[i], case.second_scales[i]
        m, v = (decode(x.view(-1), s, which).view(x.shape) for x, s, which in zip((m, v), scales, (0, 1), strict=True))
    return m.double(), v.double()


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("moments", FORMATS)
@on_device
def test_moments_are_rounded_as_plain_pytorch_does(moments: str, offset: int) -> None:
    case = narrow(make_operands(SHAPES, torch.float32, offset=offset), moments)
    other = clone(case)
    clip = float64(0.0, 0.5, 0.0)
    whole_step(case, clip)
    eager.lamb_step(other, clip, rates(other))
    assert [step.item() for step in case.steps] == [3.0] * len(SHAPES)
    for mine, theirs in ((case.exp_avgs, other.exp_avgs), (case.exp_avg_sqs, other.exp_avg_sqs)):
        # What was computed may differ in its last bit, which can move a number over the edge between two roundings.
        differ = sum(int((a != b).sum()) for a, b in zip(mine, theirs, strict=True))
        assert differ <= 1e-4 * sum(tensor.numel() for tensor in mine)
    for scale, expected in zip(scales_of(case), scales_of(other), strict=True):
        torch.testing.assert_close(scale, expected, rtol=1e-6, atol=0)


def scales_of(case: Operands) -> list[Tensor]:
    return [*case.first_scales, *case.second_scales]


def odd_gradient() -> Tensor:
    """Return values of 15 decades, what the codes stand for, zeros, and blocks with Inf and NaN."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(40 * BLOCK, generator=generator)
    mapped = dynamic_map(FIRST, torch.device("cpu"))[torch.randint(256, (20 * BLOCK,), generator=generator)]
    poisoned = normal[: 4 * BLOCK].clone()
    poisoned[[3, 200, BLOCK + 8]] = torch.tensor([math.inf, -math.inf, math.nan])
    huge = normal[:BLOCK].clone()
    huge[5] = 1e25  # its square overflows
    poisoned[2 * BLOCK : 3 * BLOCK] = 0
    return torch.cat([normal, normal * torch.logspace(0, -15, len(normal)), mapped, poisoned, huge, -normal[:9]])


@pytest.mark.parametrize("moments", FORMATS)
@on_device
def test_numbers_of_any_size_and_kind_round_as_in_plain_pytorch(moments: str) -> None:
    gradient = odd_gradient().to(DEVICE)
    # With betas of 0 the moments are the gradient and its square.
    case = narrow(make_operands([gradient.shape], torch.float32, betas=(0.0, 0.0)), moments)
    case.grads[0].copy_(gradient)
    other = clone(case)
    for operands, backend in ((case, launch), (other, eager)):
        backend.lamb_update(operands, float64(0.0, 1.0, 0.0))
    for mine, theirs in ((case.exp_avgs, other.exp_avgs), (case.exp_avg_sqs, other.exp_avg_sqs)):
        kind = torch.uint8 if moments == "8bit" else torch.int16
        distance = (mine[0].view(kind).int() - theirs[0].view(kind).int()).abs()
        assert distance.max() <= 1
        assert distance.sum() <= 1e-4 * len(distance)
    for scale, expected in zip(scales_of(case), scales_of(other), strict=True):
        torch.testing.assert_close(scale, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("half", [None, *HALF])
@pytest.mark.parametrize("moments", FORMATS)
@on_device
def test_ratio_and_step_are_those_of_the_moments_as_they_are_stored(
    moments: str, half: torch.dtype | None, offset: int
) -> None:
    case = narrow(make_operands(SHAPES, torch.float32, half, offset), moments)
    before = clone(case)
    norms = whole_step(case, clip_of(case, 1.0))
    for i, w in enumerate(before.weights):
        m, v = stored(case, i)
        u = m / (1 - 0.9**3) / ((v / (1 - 0.999**3)).sqrt() + 1e-6) + 0.01 * w.double()
        ratio = float(w.double().norm() / u.norm()) if w.numel() else 1.0
        assert norms[:3, i].tolist() == pytest.approx([float(w.double().norm()), float(u.norm()), ratio], rel=2e-6)
        torch.testing.assert_close(case.weights[i].double(), w.double() - LR * ratio * u, rtol=2e-6, atol=1e-6)
    for weight, copy in zip(case.weights, case.copies, strict=bool(half)):
        assert copy.equal(weight.to(copy.dtype))


@pytest.mark.parametrize("moments", FORMATS)
@on_device
def test_a_step_at_once_is_that_in_two_passes_to_the_bit(moments: str) -> None:
    one, other = (narrow(make_operands(SHAPES, torch.float32), moments) for _ in range(2))
    clip = float64(2.0, 0.5, 0.0)
    assert whole_step(one, clip).equal(both_passes(other, clip))
    assert as_bits(written(one)) == as_bits(written(other))


@pytest.mark.parametrize("take", [whole_step, both_passes])
@pytest.mark.parametrize("moments", FORMATS)
@on_device
def test_a_skipped_step_keeps_every_bit(moments: str, take: Any) -> None:
    case = narrow(make_operands([(2, 8), (launch.CHUNK + 9,), (0,)], torch.float32), moments)
    case.grads[0].fill_(math.nan)
    before = as_bits(written(case))
    norms = take(case, clip_of(case, 1.0))
    assert as_bits(written(case)) == before
    assert norms[1:].tolist() == [[0] * 3, [1] * 3, [0] * 3]


@pytest.mark.parametrize("moments", FORMATS)
@on_device
def test_replicas_and_repeated_runs_round_alike_and_steps_do_not(moments: str) -> None:
    one, other, later = (narrow(make_operands([(5000,)], torch.float32), moments) for _ in range(3))
    later.steps[0].fill_(7.0)
    for case in (one, other, later):
        whole_step(case, float64(0.0, 1.0, 0.0))
    assert as_bits(one.exp_avgs) == as_bits(other.exp_avgs)
    assert as_bits(one.exp_avgs) != as_bits(later.exp_avgs)


@on_device
def test_what_is_written_counts_as_modified_in_place() -> None:
    case = narrow(make_operands([(3,)], torch.float32), "8bit")
    scale = case.first_scales[0].requires_grad_()
    loss = scale.square().sum()
    with torch.no_grad():
        whole_step(case, float64(0.0, 1.0, 0.0))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)
