"""The compiled kernel against the oracle, and what it promises that no single step can show."""

from typing import Any

import pytest
import torch
from torch import Tensor

from optim import backend
from optim.kernels.cpu import call
from optim.kernels.operands import Operands
from optim.kernels.settings import table
from optim.reference import lamb_step
from optim.step.ready import settings_of
from tests.optim.kernels.test_eager import bits
from tests.optim.oracle import SWITCHES, make_tensors

SIZES = [(0,), (1,), (7,), (15,), (16,), (17,), (1023,), (), (13, 29), (127, 131), (3, 5, 7)]
"""127·131 is more than a block."""
DEFAULTS: dict[str, Any] = {
    "betas": (0.9, 0.999),
    "eps": 1e-6,
    "weight_decay": 0.01,
    "weight_norm_bounds": None,
    "trust_ratio_bounds": None,
    "layer_adaptation": True,
}
LR = 0.05


@pytest.fixture(autouse=True)
def threads() -> Any:
    """Leave the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make_operands(
    shapes: list[tuple[int, ...]] = SIZES, dtype: torch.dtype = torch.float64, offset: int = 0, **switches: Any
) -> Operands:
    """Return tensors at step 2; `offset` elements away from what is aligned."""

    def place(tensor: Tensor) -> Tensor:
        room = torch.empty(tensor.numel() + offset, dtype=dtype)[offset:].view(tensor.shape)
        return room.copy_(tensor)

    grads, weights, means, squares = ([place(t) for t in make_tensors(shapes, seed)] for seed in range(4))
    for square in squares:  # not so near 0 that half precision rounds away what the update divides by
        square.square_().add_(0.01)
    rest = {name: switches.get(name, True) for name in ("bias_correction", "grad_averaging")}
    settings = table([settings_of(DEFAULTS | switches, **rest)] * len(shapes))
    return Operands(weights, grads, means, squares, [torch.tensor(2.0) for _ in shapes], settings=settings)


def tensors_of(operands: Operands) -> list[Tensor]:
    return [*operands.weights, *operands.state, *operands.grads]


def clip_of(factor: float = 1.0, skip: bool = False) -> Tensor:
    return torch.tensor([0.0, factor, skip], dtype=torch.float64)


def rates(operands: Operands) -> Tensor:
    return torch.full((len(operands),), LR, dtype=torch.float64)


def both_passes(operands: Operands, clip: Tensor) -> Tensor:
    """Do as `lamb_step` does, by the operators for tensors of which other ranks have parts."""
    norms = call.lamb_ratio(operands, call.lamb_update(operands, clip), clip, rates(operands))
    call.lamb_apply(operands, norms[3])
    return norms


def whole_step(operands: Operands, clip: Tensor) -> Tensor:
    return call.lamb_step(operands, clip, rates(operands))


def follow_the_oracle(operands: Operands, settings: dict[str, Any], take: Any, rtol: float, atol: float) -> None:
    """Take a step from step 2 and compare all that it leaves with the oracle."""
    before = [[tensor.clone() for tensor in row[:4]] for row in operands.each()]
    grad_norm = sum(g.double().square().sum() for _, g, *_ in before) ** 0.5
    limit = settings.get("max_grad_norm")
    clip = 1 / max(1.0, float(grad_norm) / limit) if limit else 1.0
    norms = take(operands, clip_of(clip))
    for i, ((w, g, m, v), after) in enumerate(zip(before, operands.each(), strict=True)):
        made = lamb_step(w, g, m, v, 3, lr=LR, grad_norm=float(grad_norm), **settings)
        for got, expected in zip((after.weight, after.exp_avg, after.exp_avg_sq), made[:3], strict=True):
            torch.testing.assert_close(got.double(), expected, rtol=rtol, atol=atol)
        assert norms[:, i].tolist() == pytest.approx([*made[3:6], LR * made.trust_ratio], rel=rtol)
        assert after.grad.equal(g)
        assert after.step == 3


def test_this_machine_has_the_compiled_kernel() -> None:
    assert backend("cpu").name == "fused"
    assert "lamb-" in backend("cpu").reason
    assert backend("meta").name == "eager"


@pytest.mark.parametrize("take", [whole_step, both_passes])
@pytest.mark.parametrize("settings", [{}, *SWITCHES], ids=str)
def test_every_shape_follows_the_oracle_for_every_switch(settings: dict[str, Any], take: Any) -> None:
    follow_the_oracle(make_operands(**settings), settings, take, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("take", [whole_step, both_passes])
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"),
    [
        (torch.float32, 2e-6, 1e-7),
        (torch.float64, 1e-12, 1e-14),
        (torch.bfloat16, 1e-2, 1e-3),
        (torch.float16, 2e-3, 1e-4),
    ],
)
@pytest.mark.parametrize("offset", [0, 1])
def test_every_dtype_and_alignment_follows_the_oracle(
    dtype: torch.dtype, rtol: float, atol: float, offset: int, take: Any
) -> None:
    follow_the_oracle(make_operands(dtype=dtype, offset=offset), {"max_grad_norm": 1.0}, take, rtol, atol)


def test_the_kernel_takes_contiguous_tensors_whose_dtypes_it_knows() -> None:
    (plain,) = make_operands([(4, 6)], torch.float32).each()
    half, narrow = torch.zeros(4, 6, dtype=torch.bfloat16), torch.zeros(4, 6, dtype=torch.uint8)
    assert call.takes(plain)
    assert call.takes(plain._replace(grad=half))
    assert call.takes(plain._replace(grad=half, copy=half))
    assert call.takes(plain._replace(exp_avg=narrow, exp_avg_sq=narrow))
    assert not call.takes(plain._replace(grad=plain.grad.t()))
    assert not call.takes(plain._replace(grad=plain.grad.double()))
    assert not call.takes(plain._replace(copy=plain.weight))
    assert not call.takes(plain._replace(exp_avg_sq=half))
    assert not call.takes(plain._replace(step=plain.step.double()))


MANY = [(70_000,), (3,), (500, 1001), *[(5,)] * 200, (16384,), (16385,)]  # several groups, blocks and threads


@pytest.mark.parametrize("take", [whole_step, both_passes])
@pytest.mark.parametrize("dtype", call.DTYPES)
def test_any_number_of_threads_gives_the_same_bits(dtype: torch.dtype, take: Any) -> None:
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        operands = make_operands(MANY, dtype)
        norms = take(operands, clip_of(0.5))
        results.append([norms, *tensors_of(operands)])
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("take", [whole_step, both_passes])
@pytest.mark.parametrize("flushes", [False, True])
def test_all_threads_flush_subnormal_numbers_if_the_caller_does(flushes: bool, take: Any) -> None:
    torch.set_num_threads(3)
    take(make_operands(MANY), clip_of())  # the threads are there before the caller decides
    operands = make_operands(MANY, torch.float32)
    for moment in operands.exp_avgs:
        moment.fill_(1e-40)
    torch.set_flush_denormal(flushes)
    try:
        take(operands, clip_of(0.0))
    finally:
        torch.set_flush_denormal(False)
    assert set(torch.cat([moment.flatten() for moment in operands.exp_avgs]).eq(0).tolist()) == {flushes}


@pytest.mark.parametrize("dtype", call.DTYPES)
def test_a_step_at_once_is_that_in_two_passes(dtype: torch.dtype) -> None:
    one, other = make_operands(MANY, dtype), make_operands(MANY, dtype)
    # Square roots of PyTorch may be off by one unit in the last place of float64.
    torch.testing.assert_close(whole_step(one, clip_of(0.5)), both_passes(other, clip_of(0.5)), rtol=1e-15, atol=0)
    for a, b in zip(one.weights, other.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).tiny)
    assert all(torch.equal(a, b) for a, b in zip(one.state, other.state, strict=True))


@pytest.mark.parametrize("take", [whole_step, both_passes])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_copies_that_somebody_else_wrote_become_the_weights(half: torch.dtype, take: Any) -> None:
    case, expected = (make_operands([(2, 8), (1030,), (0,)], torch.float32) for _ in range(2))
    for operands in (case, expected):
        operands.grads = [grad.to(half) for grad in operands.grads]
        operands.copies = [weight.to(half) for weight in operands.weights]
    for i, copy in enumerate(case.copies):
        copy.view(-1)[::3] += 1
        expected.copies[i].copy_(copy)
        expected.weights[i].view(-1)[::3] = copy.view(-1)[::3].float()
    assert torch.equal(take(case, clip_of()), take(expected, clip_of()))
    for got, wanted in zip(case.lists, expected.lists, strict=True):
        assert all(map(torch.equal, got, wanted))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_every_half_precision_number_is_read_as_pytorch_reads_it(half: torch.dtype) -> None:
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(half)
    operands = make_operands([(2**16,)], torch.float32)
    operands.grads, operands.copies = [torch.zeros_like(numbers)], [numbers]
    operands.weights[0].fill_(0.3)  # as float32, which no number of half precision is
    call.lamb_update(operands, clip_of())
    expected = torch.where(numbers == torch.tensor(0.3).to(half), 0.3, numbers.float())
    (got,) = operands.weights
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.view(torch.int32)[~got.isnan()], expected.view(torch.int32)[~got.isnan()])


@pytest.mark.parametrize("take", [whole_step, both_passes])
def test_a_skipped_step_keeps_every_bit_and_tells_the_weight_norm(take: Any) -> None:
    operands = make_operands([(2, 8), (9,)], torch.float32)
    operands.grads[0].fill_(float("nan"))
    operands.exp_avgs[0][0, :3] = torch.tensor([-0.0, 0.0, -1e-45])
    before = bits([*operands.weights, *operands.state])
    norms = take(operands, clip_of(float("nan"), skip=True))
    assert bits([*operands.weights, *operands.state]) == before
    assert norms[0].tolist() == pytest.approx([w.double().norm().item() for w in operands.weights])
    assert norms[1:].tolist() == [[0, 0], [1, 1], [0, 0]]


def test_a_scale_of_zero_keeps_every_bit_whatever_the_update() -> None:
    operands = make_operands([(2, 8)], torch.float32)
    operands.weights[0][0, :4] = torch.tensor([-0.0, 0.0, float("inf"), -1e-45])
    operands.exp_avgs[0][1] = float("nan")
    before = bits(operands.weights)
    call.lamb_apply(operands, torch.zeros(1, dtype=torch.float64))
    assert bits(operands.weights) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_and_rounded_as_pytorch_does(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    between = torch.linspace(0.0, 70000.0, 2**16) if dtype is torch.float16 else torch.linspace(0.0, 1e30, 2**16)
    tiny = torch.linspace(0.0, 1e-4, 2**16)
    for weights in (every, between.to(dtype), tiny.to(dtype)):
        # With first moment w, no second one and eps 1, u is w to float32 and w - scale·u is (1 - scale)·w.
        operands = make_operands([weights.shape], dtype, eps=1.0, weight_decay=0.0, bias_correction=False)
        (w,), (m,), (v,) = operands.weights, operands.exp_avgs, operands.exp_avg_sqs
        w.copy_(weights)
        m.copy_(weights)
        v.zero_()
        call.lamb_apply(operands, torch.tensor([0.3], dtype=torch.float64))
        expected = (weights.float() - torch.tensor(0.3) * weights.float()).to(dtype)
        near = (
            torch.nextafter(expected, expected.new_tensor(float("inf"))),
            torch.nextafter(expected, expected.new_tensor(float("-inf"))),
        )
        same = (w == expected) | (expected.isnan() & w.isnan())
        assert (same | (w == near[0]) | (w == near[1])).all()
        assert same.float().mean() > 0.99


def test_what_is_written_counts_as_modified_in_place() -> None:
    operands = make_operands([(3,)])
    loss = operands.weights[0].requires_grad_().square().sum()
    with torch.no_grad():
        whole_step(operands, clip_of())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)
