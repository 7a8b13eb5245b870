"""The Triton kernels against the oracle, interpreted where there is no GPU; `test_compiled` compiles them."""

import math
import subprocess
import sys
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor, nn

from optim import Lamb
from optim.kernels import eager, operators
from optim.kernels.cuda import launch as cuda
from optim.kernels.cuda import tables, totals
from optim.kernels.settings import Settings, table
from optim.reference import lamb_step
from tests.optim.kernels.cuda.interpreted import DEVICE, on_device
from tests.optim.oracle import Oracle, make_tensors
from tests.optim.test_lamb import SWITCHES

SHAPES = [(0,), (1,), (7,), (15,), (16,), (17,), (1023,), (), (13, 29), (3, 5, 7)]
CHUNKS = [(cuda.CHUNK,), (0, 3), (5,), (3, cuda.CHUNK // 3 + 171), (600,)]
LR = 0.05
HALF = [torch.bfloat16, torch.float16]


class Case(NamedTuple):
    """The lists of a call, in the order of `lamb_step`."""

    grads: list[Tensor]
    weights: list[Tensor]
    copies: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    scales: list[Tensor]
    steps: list[Tensor]

    @property
    def state(self) -> list[Tensor]:
        """All that a step writes to."""
        return [*self.weights, *self.copies, *self.exp_avgs, *self.exp_avg_sqs, *self.steps]

    def clone(self) -> "Case":
        return Case(*([tensor.clone() for tensor in each] for each in self))


def make_case(
    shapes: list[tuple[int, ...]] = SHAPES,
    dtype: torch.dtype = torch.float64,
    grads: torch.dtype | None = None,
    offset: int = 0,
) -> Case:
    """Return tensors at step 2; `offset` elements away from what is aligned, and with copies if grads are narrower."""

    def place(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
        rooms = [torch.empty(tensor.numel() + offset, dtype=dtype, device=DEVICE)[offset:] for tensor in tensors]
        return [room.view(tensor.shape).copy_(tensor) for room, tensor in zip(rooms, tensors, strict=True)]

    g, w, m, v = (make_tensors(shapes, seed) for seed in range(4))
    v = [square.square().add(0.01) for square in v]  # not so near 0 that half precision rounds away the divisor
    weights = place(w, dtype)
    copies = place(weights, grads) if grads else []
    steps = [torch.tensor(2.0, device=DEVICE) for _ in shapes]
    return Case(place(g, grads or dtype), weights, copies, place(m, dtype), place(v, dtype), [], steps)


def float64(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device=DEVICE)


def rates(case: Case) -> Tensor:
    return torch.full((len(case.weights),), LR, dtype=torch.float64, device=DEVICE)


def rows(case: Case, **switches: Any) -> Tensor:
    """Return the table of settings if all tensors have these."""
    defaults: dict[str, Any] = {"betas": (0.9, 0.999), "grad_averaging": True, "eps": 1e-6, "weight_decay": 0.01}
    s = defaults | switches
    beta1, beta2 = s["betas"]
    bounds = *s.get("weight_norm_bounds", (0.0, math.inf)), *s.get("trust_ratio_bounds", (0.0, math.inf))
    corrected, adapted = (float(s.get(name, True)) for name in ("bias_correction", "layer_adaptation"))
    moments = beta1, beta2, 1 - beta1 if s["grad_averaging"] else 1.0
    settings = Settings._make([*moments, s["eps"], s["weight_decay"], *bounds, corrected, adapted])
    return table(((settings, len(case.weights)),))


def whole_step(case: Case, clip: Tensor, settings: Tensor) -> Tensor:
    norms: Tensor = cuda.lamb_step(*case, clip, rates(case), settings)
    return norms


def both_passes(case: Case, clip: Tensor, settings: Tensor) -> Tensor:
    """Do as `lamb_step` does, by the operators that ranks use which share their tensors."""
    moments = case.exp_avgs, case.exp_avg_sqs, case.scales, case.steps
    sums = cuda.lamb_update(case.grads, case.weights, *moments, clip, settings)
    norms: Tensor = cuda.lamb_ratio(sums, clip, rates(case), settings)
    cuda.lamb_apply(case.weights, case.copies, *moments, norms[3], settings)
    return norms


def clip_of(case: Case, max_grad_norm: float | None) -> Tensor:
    """Return what clips the gradients, by the operators."""
    clip: Tensor = cuda.lamb_clip(cuda.sum_squares(case.grads), max_grad_norm or 0.0, True)
    return clip


def follow_the_oracle(case: Case, take: Any, rtol: float, atol: float, **switches: Any) -> None:
    """Take a step and compare all that it leaves with the oracle."""
    before = case.clone()
    grad_norm = math.sqrt(sum(float(g.double().square().sum()) for g in before.grads))
    clip = clip_of(case, switches.get("max_grad_norm"))
    norms = take(case, clip, rows(case, **switches))
    assert clip[0].item() == pytest.approx(grad_norm, rel=1e-12)
    assert clip[2] == 0
    for i, grad in enumerate(before.grads):
        start = before.weights[i], grad, before.exp_avgs[i], before.exp_avg_sqs[i], 3
        made = lamb_step(*start, lr=LR, grad_norm=grad_norm, **switches)
        for got, expected in zip((case.weights[i], case.exp_avgs[i], case.exp_avg_sqs[i]), made[:3], strict=True):
            torch.testing.assert_close(got.double(), expected, rtol=rtol, atol=atol)
        assert norms[:3, i].tolist() == pytest.approx(made[3:6], rel=rtol)
        assert norms[3, i].item() == pytest.approx(LR * made.trust_ratio, rel=rtol)
        assert clip[1].item() == pytest.approx(made.clip_coef, rel=1e-12)
        assert case.grads[i].equal(grad)
        assert case.steps[i] == 3


def as_bits(tensors: list[Tensor]) -> list[bytes]:
    return [tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors]


@pytest.mark.parametrize("switches", [{}, {"max_grad_norm": 1e4}, {"eps": 0.0}, *SWITCHES], ids=str)
@on_device
def test_every_shape_follows_the_oracle_for_every_switch(switches: dict[str, Any]) -> None:
    follow_the_oracle(make_case(), whole_step, 1e-12, 1e-14, **switches)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float32, 2e-6, 1e-7), (torch.float64, 1e-12, 1e-14)])
@on_device
def test_tensors_of_several_chunks_follow_the_oracle(dtype: torch.dtype, rtol: float, atol: float, offset: int) -> None:
    follow_the_oracle(make_case(CHUNKS, dtype, offset=offset), whole_step, rtol, atol, max_grad_norm=1.0)


@pytest.mark.parametrize("half", HALF)
@on_device
def test_masters_follow_the_oracle_and_copies_are_their_nearest_numbers(half: torch.dtype) -> None:
    case = make_case(CHUNKS, torch.float32, half)
    follow_the_oracle(case, whole_step, 2e-6, 1e-7, max_grad_norm=1.0)
    for weight, copy in zip(case.weights, case.copies, strict=True):
        assert copy.equal(weight.to(half))


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("half", HALF)
@on_device
def test_half_precision_is_a_unit_or_less_from_what_its_moments_say(half: torch.dtype, offset: int) -> None:
    case = make_case([*SHAPES, (cuda.CHUNK + 2,)], half, offset=offset)
    before = case.clone()
    norms = whole_step(case, float64(0.0, 0.5, 0.0), rows(case))
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
    one, other = (make_case([*SHAPES, (cuda.CHUNK + 2,)], dtype, grads) for _ in range(2))
    clip = float64(2.0, 0.5, 0.0)
    assert whole_step(one, clip, rows(one)).equal(both_passes(other, clip, rows(other)))
    assert as_bits(one.state) == as_bits(other.state)


@on_device
def test_tensors_of_one_call_have_settings_and_rates_of_their_own() -> None:
    case = make_case([(9,), (40,), (9,), (40,)])
    before = case.clone()
    decayed, plain = Settings(beta3=1 - 0.9), Settings(0.8, 0.95, 1.0, 1e-3, 0.0, bias_correction=0.0)
    own = [0.1, 0.2, 0.3, 0.4]
    cuda.lamb_step(*case, float64(0.0, 1.0, 0.0), float64(*own), table(((decayed, 2), (plain, 2))))
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


@pytest.mark.parametrize("take", [whole_step, both_passes])
@on_device
def test_tensors_that_are_not_contiguous_are_stepped_among_the_others(take: Any) -> None:
    case = make_case([(4, 6), (30, 41), (9,), (20, 30)])
    for each in case[:5]:
        if each:
            each[1] = each[1].t()
            each[2] = each[2][::2]
    follow_the_oracle(case, take, rtol=1e-12, atol=1e-14, max_grad_norm=1.0)


@on_device
def test_what_the_kernels_cannot_read_is_computed_in_plain_pytorch() -> None:
    case = make_case([(300,), (7,)], torch.float32)
    wide = case._replace(steps=[step.double() for step in case.steps])
    other = wide.clone()
    clip, lr = float64(0.0, 0.5, 0.0), float64(LR, LR)
    assert cuda.lamb_step(*wide, clip, lr, rows(case)).equal(eager.lamb_step(*other, clip, lr, rows(case)))
    assert as_bits(wide.state) == as_bits(other.state)


@pytest.mark.parametrize("take", [whole_step, both_passes])
@pytest.mark.parametrize("half", [None, *HALF])
@on_device
def test_a_skipped_step_keeps_every_bit_and_tells_the_weight_norm(half: torch.dtype | None, take: Any) -> None:
    case = make_case([(2, 8), (cuda.CHUNK + 9,), (0,)], torch.float32, half)
    case.grads[0].fill_(math.nan)
    case.exp_avgs[0][0, :3] = torch.tensor([-0.0, 0.0, -1e-45], device=DEVICE)
    for step in case.steps:
        step.zero_()
    before = as_bits(case.state)
    clip = clip_of(case, 1.0)
    norms = take(case, clip, rows(case))
    assert clip[2] == 1
    assert as_bits(case.state) == before
    assert norms[0].tolist() == pytest.approx([float(w.double().norm()) for w in case.weights])
    assert norms[1:].tolist() == [[0] * 3, [1] * 3, [0] * 3]


@on_device
def test_without_skipping_what_is_not_finite_spreads_over_its_tensors() -> None:
    case = make_case([(9,), (8,)])
    case.grads[0][3] = math.nan
    clip = cuda.lamb_clip(cuda.sum_squares(case.grads), 1.0, False)
    norms = whole_step(case, clip, rows(case))
    assert clip.isnan().tolist() == [True, True, False]
    assert norms[1:].isnan().all()
    assert all(weight.isnan().all() for weight in case.weights)


@on_device
def test_a_scale_of_zero_keeps_every_bit_whatever_the_update() -> None:
    case = make_case([(2, 8)], torch.float32, torch.bfloat16)
    case.weights[0][0, :4] = torch.tensor([-0.0, 0.0, math.inf, -1e-45], device=DEVICE)
    case.exp_avgs[0][1] = math.nan
    before = as_bits(case.state)
    moments = case.exp_avgs, case.exp_avg_sqs, case.scales, case.steps
    cuda.lamb_apply(case.weights, case.copies, *moments, float64(0.0), rows(case))
    assert as_bits(case.state) == before


@on_device
def test_a_tensor_that_was_never_stepped_is_applied_as_after_its_first_step() -> None:
    never, once = make_case([(9,)]), make_case([(9,)])
    never.steps[0].zero_()
    once.steps[0].fill_(1)
    for case in (never, once):
        moments = case.exp_avgs, case.exp_avg_sqs, case.scales, case.steps
        cuda.lamb_apply(case.weights, case.copies, *moments, float64(LR), rows(case))
    assert as_bits(never.weights) == as_bits(once.weights) != as_bits(make_case([(9,)]).weights)


@on_device
def test_a_tensor_of_zeros_has_ratio_one_and_moves_by_its_update() -> None:
    case = make_case([(9,), (9,)])
    case.weights[0].zero_()
    for each in (case.grads, case.weights, case.exp_avgs):
        each[1].fill_(1.0 if each is case.weights else 0.0)
    norms = whole_step(case, float64(0.0, 1.0, 0.0), rows(case, weight_decay=0.0))
    assert norms[2].tolist() == [1, 1]
    assert norms[0, 0] == 0 < norms[1, 0]
    assert norms[1, 1] == 0 < norms[0, 1]
    assert case.weights[0].abs().min() > 0
    assert (case.weights[1] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
@on_device
def test_squares_are_summed_in_float64_whatever_the_dtype(dtype: torch.dtype) -> None:
    tensors = [x.to(DEVICE) for x in make_tensors([(1023,), (0,), (17, 3), (cuda.CHUNK * 2 + 1,)], 5, dtype)]
    tensors[0][0] = 60000.0 if dtype is torch.float16 else 1e30
    expected = [math.fsum(x * x for x in tensor.flatten().tolist()) for tensor in tensors]
    torch.testing.assert_close(cuda.sum_squares(tensors), float64(*expected), rtol=1e-14, atol=0)


@on_device
def test_a_tensor_has_the_same_sum_alone_and_among_others() -> None:
    shapes = [(700,), (cuda.CHUNK * 3 + 5,), (0,), (9, 9)]
    tensors = [tensor.to(DEVICE) for tensor in make_tensors(shapes, 6, torch.float32)]
    together = cuda.sum_squares(tensors)
    assert [cuda.sum_squares([tensor]).item() for tensor in tensors] == together.tolist()


@on_device
def test_any_number_of_chunks_is_added_up() -> None:
    layout = tables.layout([torch.empty(n, device=DEVICE) for n in (1300, 0, 512, 3)], 1)  # chunks of one element
    partials = torch.arange(layout.chunks, dtype=torch.float64, device=DEVICE)
    out = float64(*[math.nan] * 4)
    cuda._launch(totals.total_squares, 4, layout.table, partials, out, 4, CHUNK=1)
    assert out.tolist() == [sum(range(1300)), 0, sum(range(1300, 1812)), sum(range(1812, 1815))]


@pytest.mark.parametrize("count", [1, 511, 512, 513, 1300])
@pytest.mark.parametrize("max_grad_norm", [0.0, 1e-3, 1e9])
@on_device
def test_gradients_are_clipped_to_the_norm_of_all(count: int, max_grad_norm: float) -> None:
    squares = torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    norm = math.sqrt(math.fsum(squares.tolist()))
    factor = min(1.0, max_grad_norm / norm) if max_grad_norm else 1.0
    clip = cuda.lamb_clip(squares.to(DEVICE), max_grad_norm, True)
    assert clip.tolist() == pytest.approx([norm, factor, 0.0], rel=1e-14)


@pytest.mark.parametrize("value", [math.inf, math.nan])
@on_device
def test_a_norm_that_is_not_finite_skips_the_step_if_that_is_wanted(value: float) -> None:
    squares = float64(1.0, value)
    assert [cuda.lamb_clip(squares, 1.0, wanted)[2].item() for wanted in (True, False)] == [1, 0]
    assert cuda.lamb_clip(float64(1e308), 0.0, True)[2] == 0


@on_device
def test_what_is_written_counts_as_modified_in_place() -> None:
    case = make_case([(3,)])
    loss = case.weights[0].requires_grad_().square().sum()
    with torch.no_grad():
        whole_step(case, float64(0.0, 1.0, 0.0), rows(case))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


@on_device
def test_an_optimizer_on_the_kernels_follows_the_oracle_with_groups_of_its_own() -> None:
    operators.BACKENDS["triton"] = cast(operators.Operators, cuda)
    parameters = [nn.Parameter(tensor.to(DEVICE)) for tensor in make_tensors([(40,), (3, 9), (7,)], 0)]
    groups: list[dict[str, Any]] = [{"params": parameters[:2]}, {"params": parameters[2:], "weight_decay": 0.0}]
    optimizer, oracle = Lamb(groups, lr=LR, max_grad_norm=1.0, backend="triton"), Oracle(parameters)
    for step in range(1, 4):
        gradients = make_tensors([p.shape for p in parameters], step)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.to(DEVICE, copy=True)
        optimizer.step()
        oracle.step(gradients, {2: {"weight_decay": 0.0}}, lr=LR, max_grad_norm=1.0)
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)


def test_without_triton_plain_pytorch_computes_and_says_why() -> None:
    program = """if True:
        import sys
        sys.modules["triton"] = None  # as if it were not installed
        import torch
        from optim.kernels.cuda import launch as cuda
        assert cuda.lamb_clip(torch.tensor([9.0, 16.0]).double(), 1.0, True).tolist() == [5.0, 0.2, 0.0]
        assert cuda.sum_squares([torch.ones(9), torch.ones(4)]).tolist() == [9.0, 4.0]
        print(*cuda.backend(), sep=": ")
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("eager: the CUDA kernels need Triton")
    assert "pip install triton" in run.stdout


def test_the_backend_is_named_with_its_version() -> None:
    assert cuda.backend().name == "fused"
    assert cuda.backend().reason.startswith("Triton 3.")


if DEVICE.type == "cuda":  # the interpreter has no streams

    def test_a_captured_step_replays_to_the_bits_of_steps_that_are_not() -> None:
        case, other = make_case(CHUNKS, torch.float32), make_case(CHUNKS, torch.float32)

        def step(case: Case) -> None:
            whole_step(case, clip_of(case, 1.0), settings)

        settings = rows(case)
        for each in (case, other):
            step(each)
        moved = case._replace(grads=[grad.clone() for grad in case.grads])
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step(moved)
        for _ in range(3):
            graph.replay()
            step(other)
        torch.cuda.synchronize()
        assert as_bits(case.state) == as_bits(other.state)
