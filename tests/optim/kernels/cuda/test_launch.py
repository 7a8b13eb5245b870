"""The Triton kernels against the oracle, interpreted where there is no GPU; `test_compiled` compiles them."""

import math
import subprocess
import sys
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
import triton
from torch import nn

from optim import Lamb
from optim.kernels import operators
from optim.kernels.cuda import launch
from optim.kernels.settings import Settings, table
from optim.reference import lamb_step
from tests.optim.kernels.cuda.cases import (
    CHUNKS,
    HALF,
    LR,
    SHAPES,
    as_bits,
    both_passes,
    clip_of,
    clone,
    float64,
    follow_the_oracle,
    make_operands,
    whole_step,
    written,
)
from tests.optim.kernels.cuda.interpreted import DEVICE, on_device
from tests.optim.oracle import SWITCHES, Oracle, make_tensors


@pytest.mark.parametrize("switches", [{}, {"max_grad_norm": 1e4}, {"eps": 0.0}, *SWITCHES], ids=str)
@on_device
def test_every_shape_follows_the_oracle_for_every_switch(switches: dict[str, Any]) -> None:
    follow_the_oracle(make_operands(), whole_step, 1e-12, 1e-14, **switches)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float32, 2e-6, 1e-7), (torch.float64, 1e-12, 1e-14)])
@on_device
def test_tensors_of_several_chunks_follow_the_oracle(dtype: torch.dtype, rtol: float, atol: float, offset: int) -> None:
    follow_the_oracle(make_operands(CHUNKS, dtype, offset=offset), whole_step, rtol, atol, max_grad_norm=1.0)


@pytest.mark.parametrize("half", HALF)
@on_device
def test_masters_follow_the_oracle_and_copies_are_their_nearest_numbers(half: torch.dtype) -> None:
    case = make_operands(CHUNKS, torch.float32, half)
    follow_the_oracle(case, whole_step, 2e-6, 1e-7, max_grad_norm=1.0)
    for weight, copy in zip(case.weights, case.copies, strict=True):
        assert copy.equal(weight.to(half))


@pytest.mark.parametrize(("dtype", "grads"), [(torch.float64, None), (torch.float16, None), (torch.float32, HALF[0])])
@on_device
def test_a_step_at_once_is_that_in_two_passes_to_the_bit(dtype: torch.dtype, grads: torch.dtype | None) -> None:
    one, other = (make_operands([*SHAPES, (launch.CHUNK + 2,)], dtype, grads) for _ in range(2))
    clip = float64(2.0, 0.5, 0.0)
    assert whole_step(one, clip).equal(both_passes(other, clip))
    assert as_bits(written(one)) == as_bits(written(other))


@on_device
def test_tensors_of_one_call_have_settings_and_rates_of_their_own() -> None:
    decayed, plain = Settings(beta3=1 - 0.9), Settings(0.8, 0.95, 1.0, 1e-3, 0.0, bias_correction=0.0)
    case = replace(make_operands([(9,), (40,), (9,), (40,)]), settings=table([decayed, decayed, plain, plain]))
    before = clone(case)
    own = [0.1, 0.2, 0.3, 0.4]
    launch.lamb_step(case, float64(0.0, 1.0, 0.0), float64(*own))
    other: dict[str, Any] = {
        "betas": (0.8, 0.95),
        "grad_averaging": False,
        "eps": 1e-3,
        "weight_decay": 0.0,
        "bias_correction": False,
    }
    for i, switches in enumerate([{}, {}, other, other]):
        start = before.weights[i], before.grads[i], before.exp_avgs[i], before.exp_avg_sqs[i], 3
        made = lamb_step(*start, lr=own[i], **switches)
        torch.testing.assert_close(case.weights[i], made.weight, rtol=1e-12, atol=1e-14)


def test_the_kernels_take_contiguous_tensors_whose_dtypes_they_know() -> None:
    (plain,) = make_operands([(4, 6)], torch.float32).each()
    half, codes = plain.grad.bfloat16(), plain.grad.byte()
    assert launch.takes(plain)
    assert launch.takes(plain._replace(grad=half))
    assert launch.takes(plain._replace(grad=half, copy=half))
    assert launch.takes(plain._replace(exp_avg=half, exp_avg_sq=half))
    assert not launch.takes(plain._replace(grad=plain.grad.t()))
    assert not launch.takes(plain._replace(grad=plain.grad.double()))
    assert not launch.takes(plain._replace(exp_avg_sq=half))
    assert not launch.takes(plain._replace(exp_avg=half.half(), exp_avg_sq=half.half()))
    assert not launch.takes(plain._replace(step=plain.step.double()))
    assert not launch.takes(plain._replace(weight=codes))


def test_eight_bit_moments_are_left_to_plain_pytorch_under_a_triton_that_compiles_them_wrongly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (plain,) = make_operands([(4, 6)], torch.float32).each()
    scale = torch.ones(1, device=DEVICE)
    codes = plain.grad.byte()
    coded = plain._replace(exp_avg=codes, exp_avg_sq=codes, first_scale=scale, second_scale=scale)
    launch.compiles_codes.cache_clear()
    for version, is_right in (("3.5.1", False), ("3.6.0", False), ("3.7.1", True), ("3.10.0+git12", True)):
        monkeypatch.setattr(triton, "__version__", version)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            assert [launch.takes(coded) for _ in range(3)] == [is_right] * 3
        assert len(warned) == (0 if is_right else 1)
        assert all(version in str(each.message) and "Triton 3.7" in str(each.message) for each in warned)
        assert launch.takes(plain)
    launch.compiles_codes.cache_clear()


@pytest.mark.parametrize("take", [whole_step, both_passes])
@pytest.mark.parametrize("half", [None, *HALF])
@on_device
def test_a_skipped_step_keeps_every_bit_and_tells_the_weight_norm(half: torch.dtype | None, take: Any) -> None:
    case = make_operands([(2, 8), (launch.CHUNK + 9,), (0,)], torch.float32, half)
    case.grads[0].fill_(math.nan)
    case.exp_avgs[0][0, :3] = torch.tensor([-0.0, 0.0, -1e-45], device=DEVICE)
    for step in case.steps:
        step.zero_()
    before = as_bits(written(case))
    clip = clip_of(case, 1.0)
    norms = take(case, clip)
    assert clip[2] == 1
    assert as_bits(written(case)) == before
    assert norms[0].tolist() == pytest.approx([float(w.double().norm()) for w in case.weights])
    assert norms[1:].tolist() == [[0] * 3, [1] * 3, [0] * 3]


@on_device
def test_without_skipping_what_is_not_finite_spreads_over_its_tensors() -> None:
    case = make_operands([(9,), (8,)])
    case.grads[0][3] = math.nan
    clip = launch.lamb_clip(launch.sum_squares(case), 1.0, False)
    norms = whole_step(case, clip)
    assert clip.isnan().tolist() == [True, True, False]
    assert norms[1:].isnan().all()
    assert all(weight.isnan().all() for weight in case.weights)


@on_device
def test_what_is_written_counts_as_modified_in_place() -> None:
    case = make_operands([(3,)])
    loss = case.weights[0].requires_grad_().square().sum()
    with torch.no_grad():
        whole_step(case, float64(0.0, 1.0, 0.0))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


@on_device
def test_an_optimizer_on_the_kernels_follows_the_oracle_with_groups_of_its_own() -> None:
    operators.BACKENDS["triton"] = lambda _: launch
    parameters = [nn.Parameter(tensor.to(DEVICE)) for tensor in make_tensors([(40,), (3, 9), (7,)], 0)]
    groups: list[dict[str, Any]] = [{"params": parameters[:2]}, {"params": parameters[2:], "weight_decay": 0.0}]
    optimizer, oracle = Lamb(groups, lr=LR, max_grad_norm=1.0, backend="triton"), Oracle(parameters)
    for step in range(1, 4):
        gradients = [gradient.to(DEVICE) for gradient in make_tensors([p.shape for p in parameters], step)]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        oracle.step(gradients, {2: {"weight_decay": 0.0}}, lr=LR, max_grad_norm=1.0)
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)


def test_without_triton_nothing_is_taken_and_the_backend_says_why() -> None:
    program = """if True:
        import sys
        sys.modules["triton"] = None  # as if it were not installed
        import torch
        from optim.kernels.cuda import launch
        from optim.kernels.operands import Operand
        one = torch.ones(3)
        assert not launch.takes(Operand(one, one, one, one, torch.ones(())))
        assert not launch.reads(one)
        print(*launch.backend(), sep=": ")
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("eager: the CUDA kernels need Triton")
    assert "pip install triton" in run.stdout


def test_the_backend_is_named_with_its_version() -> None:
    assert launch.backend().name == "fused"
    assert launch.backend().reason.startswith("Triton 3.")
