"""The Triton kernels against the oracle, interpreted where there is no GPU; `test_compiled` compiles them."""

import math
import subprocess
import sys
import warnings
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import triton
from torch import Tensor, nn

from optim import Lamb
from optim.kernels import operators
from optim.kernels.cuda import launch, tables, totals
from optim.kernels.operands import Operands
from optim.kernels.settings import Settings, table
from optim.reference import lamb_step
from tests.optim.kernels.cuda.interpreted import DEVICE, on_device
from tests.optim.oracle import SWITCHES, Oracle, make_tensors

SHAPES = [(0,), (1,), (7,), (15,), (16,), (17,), (1023,), (), (13, 29), (3, 5, 7)]
CHUNKS = [(launch.CHUNK,), (0, 3), (5,), (3, launch.CHUNK // 3 + 171), (600,)]
LR = 0.05
HALF = [torch.bfloat16, torch.float16]


def make_operands(
    shapes: list[tuple[int, ...]] = SHAPES,
    dtype: torch.dtype = torch.float64,
    grads: torch.dtype | None = None,
    offset: int = 0,
    **switches: Any,
) -> Operands:
    """Return tensors at step 2; `offset` elements away from what is aligned, and with copies if grads are narrower."""

    def place(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
        rooms = [torch.empty(tensor.numel() + offset, dtype=dtype, device=DEVICE)[offset:] for tensor in tensors]
        return [room.view(tensor.shape).copy_(tensor) for room, tensor in zip(rooms, tensors, strict=True)]

    g, w, m, v = (make_tensors(shapes, seed) for seed in range(4))
    v = [square.square().add(0.01) for square in v]  # not so near 0 that half precision rounds away the divisor
    weights = place(w, dtype)
    return Operands(
        weights=weights,
        grads=place(g, grads or dtype),
        exp_avgs=place(m, dtype),
        exp_avg_sqs=place(v, dtype),
        steps=[torch.tensor(2.0, device=DEVICE) for _ in shapes],
        copies=place(weights, grads) if grads else [],
        settings=table([settings_of(**switches)] * len(shapes)),
    )


def settings_of(**switches: Any) -> Settings:
    """Return what the oracle's arguments are called here."""
    defaults: dict[str, Any] = {"betas": (0.9, 0.999), "grad_averaging": True, "eps": 1e-6, "weight_decay": 0.01}
    s = defaults | switches
    beta1, beta2 = s["betas"]
    bounds = *s.get("weight_norm_bounds", (0.0, math.inf)), *s.get("trust_ratio_bounds", (0.0, math.inf))
    corrected, adapted = (float(s.get(name, True)) for name in ("bias_correction", "layer_adaptation"))
    moments = beta1, beta2, 1 - beta1 if s["grad_averaging"] else 1.0
    return Settings._make([*moments, s["eps"], s["weight_decay"], *bounds, corrected, adapted])


def clone(operands: Operands) -> Operands:
    return replace(deepcopy(operands))  # a new object has not looked at its tensors yet


def written(operands: Operands) -> list[Tensor]:
    """Return all that a step writes to."""
    return [*operands.weights, *operands.copies, *operands.state]


def float64(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device=DEVICE)


def rates(operands: Operands) -> Tensor:
    return torch.full((len(operands),), LR, dtype=torch.float64, device=DEVICE)


def whole_step(operands: Operands, clip: Tensor) -> Tensor:
    return launch.lamb_step(operands, clip, rates(operands))


def both_passes(operands: Operands, clip: Tensor) -> Tensor:
    """Do as `lamb_step` does, by the operators for tensors of which other ranks have parts."""
    norms = launch.lamb_ratio(operands, launch.lamb_update(operands, clip), clip, rates(operands))
    launch.lamb_apply(operands, norms[3])
    return norms


def sum_squares(tensors: list[Tensor]) -> Tensor:
    return launch.sum_squares(Operands(grads=tensors))


def clip_of(operands: Operands, max_grad_norm: float | None) -> Tensor:
    """Return what clips the gradients, by the operators."""
    return launch.lamb_clip(launch.sum_squares(operands), max_grad_norm or 0.0, True)


def follow_the_oracle(operands: Operands, take: Any, rtol: float, atol: float, **switches: Any) -> None:
    """Take a step and compare all that it leaves with the oracle."""
    assert all(map(launch.takes, operands.each()))
    operands = replace(operands, settings=table([settings_of(**switches)] * len(operands)))
    before = clone(operands)
    grad_norm = math.sqrt(sum(float(g.double().square().sum()) for g in before.grads))
    clip = clip_of(operands, switches.get("max_grad_norm"))
    norms = take(operands, clip)
    assert clip[0].item() == pytest.approx(grad_norm, rel=1e-12)
    assert clip[2] == 0
    for i, (old, new) in enumerate(zip(before.each(), operands.each(), strict=True)):
        start = old.weight, old.grad, old.exp_avg, old.exp_avg_sq, 3
        made = lamb_step(*start, lr=LR, grad_norm=grad_norm, **switches)
        for got, expected in zip((new.weight, new.exp_avg, new.exp_avg_sq), made[:3], strict=True):
            torch.testing.assert_close(got.double(), expected, rtol=rtol, atol=atol)
        assert norms[:3, i].tolist() == pytest.approx(made[3:6], rel=rtol)
        assert norms[3, i].item() == pytest.approx(LR * made.trust_ratio, rel=rtol)
        assert clip[1].item() == pytest.approx(made.clip_coef, rel=1e-12)
        assert new.grad.equal(old.grad)
        assert new.step == 3


def as_bits(tensors: list[Tensor]) -> list[bytes]:
    return [bytes(tensor.cpu().contiguous().view(-1).view(torch.uint8).tolist()) for tensor in tensors]


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
    launch._compiles_codes.cache_clear()
    for version, is_right in (("3.5.1", False), ("3.6.0", False), ("3.7.1", True), ("3.10.0+git12", True)):
        monkeypatch.setattr(triton, "__version__", version)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            assert [launch.takes(coded) for _ in range(3)] == [is_right] * 3
        assert len(warned) == (0 if is_right else 1)
        assert all(version in str(each.message) and "Triton 3.7" in str(each.message) for each in warned)
        assert launch.takes(plain)
    launch._compiles_codes.cache_clear()


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


@on_device
def test_any_number_of_chunks_is_added_up() -> None:
    tensors = [torch.empty(n, device=DEVICE) for n in (1300, 0, 512, 3)]
    layout = tables.layout(Operands(grads=tensors), 1)  # chunks of one element
    partials = torch.arange(layout.chunks, dtype=torch.float64, device=DEVICE)
    out = float64(*[math.nan] * 4)
    launch._launch(totals.total_squares, 4, layout.table, partials, out, 4, CHUNK=1)
    assert out.tolist() == [sum(range(1300)), 0, sum(range(1300, 1812)), sum(range(1812, 1815))]


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


if DEVICE.type == "cuda":  # the interpreter has no streams

    def test_a_captured_step_replays_to_the_bits_of_steps_that_are_not() -> None:
        case, other = make_operands(CHUNKS, torch.float32), make_operands(CHUNKS, torch.float32)

        def step(case: Operands) -> None:
            whole_step(case, clip_of(case, 1.0))

        for each in (case, other):
            step(each)
        moved = replace(case, grads=[grad.clone() for grad in case.grads])
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step(moved)
        for _ in range(3):
            graph.replay()
            step(other)
        torch.cuda.synchronize()
        assert as_bits(written(case)) == as_bits(written(other))
