"""The narrow formats: what rounding promises, and that the update is that of the moments as they are stored."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optim import Lamb
from optim.kernels.moments import BLOCK, FIRST, FRACTION, SECOND, Place, Rounded, decode, dynamic_map, encode
from optim.reference import lamb_step
from tests.optim.oracle import make_tensors

SHAPES = [(0,), (1,), (7,), (255,), (256,), (257,), (40, 33), (300, 401)]
NO = torch.tensor(False)


def train(moments: Any, backend: str, shapes: list[tuple[int, ...]] = SHAPES, steps: int = 3) -> Lamb:
    parameters = [nn.Parameter(w) for w in make_tensors(shapes, 0, torch.float32)]
    optimizer = Lamb(parameters, lr=0.05, max_grad_norm=1.0, moments=moments, backend=backend)
    for step in range(1, steps + 1):
        for parameter, grad in zip(parameters, make_tensors(shapes, step, torch.float32), strict=True):
            parameter.grad = grad
        optimizer.step()
    return optimizer


def parameters_of(optimizer: Lamb) -> list[Tensor]:
    parameters: list[Tensor] = optimizer.param_groups[0]["params"]
    return parameters


def stored(optimizer: Lamb) -> list[tuple[Tensor, Tensor]]:
    """Return the moments in float32, as they are saved."""
    states = optimizer.state_dict()["state"]
    return [(states[i]["exp_avg"].float(), states[i]["exp_avg_sq"].float()) for i in range(len(states))]


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize(("moments", "bytes_each"), [("full", 8.0), ("bfloat16", 4.0), ("8bit", 2.03125)])
def test_moments_take_the_bytes_that_are_promised(moments: str, bytes_each: float, backend: str) -> None:
    (parameter,) = parameters_of(optimizer := train(moments, backend, [(512, 1024)], steps=1))
    taken = sum(entry.nbytes for key, entry in optimizer.state[parameter].items() if key != "step")
    assert taken / parameter.numel() == bytes_each


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("moments", ["bfloat16", "8bit"])
def test_ratio_and_step_are_those_of_the_moments_as_they_are_stored(moments: str, backend: str) -> None:
    optimizer = train(moments, backend)
    before = [parameter.detach().clone() for parameter in parameters_of(optimizer)]
    for parameter in parameters_of(optimizer):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9))
    optimizer.step()
    assert optimizer.last_step is not None
    for i, (m, v) in enumerate(stored(optimizer)):
        # Betas of 1 leave the moments as they are, so the oracle computes u from what it is given.
        unbiased = (m.double() / (1 - 0.9**4), v.double() / (1 - 0.999**4))
        oracle = lamb_step(
            before[i], torch.zeros_like(m), *unbiased, 4, betas=(1.0, 1.0), bias_correction=False, lr=0.05
        )
        torch.testing.assert_close(parameters_of(optimizer)[i].double(), oracle.weight, rtol=2e-6, atol=1e-6)
        assert optimizer.last_step.trust_ratio[i].item() == pytest.approx(oracle.trust_ratio, rel=2e-6)


@pytest.mark.parametrize("moments", ["bfloat16", "8bit"])
def test_the_compiled_kernel_rounds_as_plain_pytorch_does(moments: str) -> None:
    compiled, plain = train(moments, "auto", steps=1), train(moments, "eager", steps=1)
    for mine, theirs in zip(parameters_of(compiled), parameters_of(plain), strict=True):
        for key in ("exp_avg", "exp_avg_sq"):
            a, b = compiled.state[mine][key], plain.state[theirs][key]
            # What was computed may differ in its last bit, which can move a number over the edge between two roundings.
            assert (a != b).sum() <= 1e-4 * a.numel()


def odd_blocks() -> Tensor:
    """Return values of 15 decades, what the codes stand for, ties, few that are not 0, and blocks with Inf and NaN."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(400 * BLOCK, generator=generator)
    wide = normal * torch.logspace(0, -15, len(normal))
    mapped = dynamic_map(FIRST, normal.device)[torch.randint(256, (100 * BLOCK,), generator=generator)]
    few = normal * (normal > 3)
    poisoned = normal[: 2 * BLOCK].clone()
    poisoned[[3, 200, BLOCK + 8]] = torch.tensor([float("inf"), float("-inf"), float("nan")])
    huge = normal[:BLOCK].clone()
    huge[5] = 1e25  # its square overflows
    return torch.cat([normal, wide, mapped, normal.round(), few, poisoned, huge])


def test_the_compiled_kernel_finds_the_codes_that_plain_pytorch_finds() -> None:
    states = []
    for backend in ("auto", "eager"):
        parameter = nn.Parameter(torch.zeros_like(odd_blocks()))
        # With betas of 0 the moments are the gradient and its square.
        optimizer = Lamb([parameter], betas=(0.0, 0.0), moments="8bit", backend=backend, skip_nonfinite=False)
        parameter.grad = odd_blocks()
        optimizer.step()
        states.append(optimizer.state[parameter])
    for key in ("exp_avg", "exp_avg_sq"):
        distance = (states[0][key].int() - states[1][key].int()).abs()
        assert distance.max() <= 1
        assert distance.sum() <= 2e-5 * distance.numel()
        scales = [state[f"{key}_scale"] for state in states]
        torch.testing.assert_close(*scales, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_a_square_that_overflows_spoils_no_block(backend: str) -> None:
    parameter = nn.Parameter(torch.ones(2 * BLOCK))
    optimizer = Lamb([parameter], moments="8bit", backend=backend)
    parameter.grad = torch.ones(2 * BLOCK)
    parameter.grad[7] = 1e25
    optimizer.step()
    assert parameter.isfinite().all()
    assert optimizer.state[parameter]["exp_avg_sq_scale"][0] == torch.finfo(torch.float32).max


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("moments", ["bfloat16", "8bit"])
def test_a_skipped_step_keeps_every_bit(moments: str, backend: str) -> None:
    optimizer = train(moments, backend)
    before = [entry.clone() for p in parameters_of(optimizer) for entry in (p.detach(), *optimizer.state[p].values())]
    for parameter in parameters_of(optimizer):
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizer.step()
    after = [entry for p in parameters_of(optimizer) for entry in (p.detach(), *optimizer.state[p].values())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("moments", ["bfloat16", "8bit"])
def test_any_number_of_threads_gives_the_same_bits(moments: str, threads: int) -> None:
    one = train(moments, "auto")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        other = train(moments, "auto")
    finally:
        torch.set_num_threads(before)
    pairs = zip(parameters_of(one), parameters_of(other), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("which", [FIRST, SECOND])
def test_what_was_decoded_goes_back_to_the_same_bits(which: int) -> None:
    value = make_tensors([(1000,)], 3, torch.float32)[0] * torch.logspace(-6, 3, 1000)
    codes, scales = encode(value.abs() if which == SECOND else value, which)
    again = encode(decode(codes, scales, which), which)
    assert torch.equal(codes, again[0])
    assert torch.equal(scales, again[1])


def test_a_second_moment_that_is_not_zero_never_becomes_zero() -> None:
    value = torch.zeros(BLOCK)
    value[:3] = torch.tensor([1.0, 1e-30, 1e-12])
    for noise in (0, 2**14, 2**15 - 1):
        kept = decode(*encode(value, SECOND, noise), SECOND)
        assert (kept[:3] > 0).all()
        assert (kept[3:] == 0).all()


def test_of_two_numbers_as_large_the_negative_one_is_the_scale() -> None:
    value = torch.zeros(BLOCK)
    value[3], value[200] = 2.0, -2.0
    codes, scales = encode(value, FIRST)
    assert scales.tolist() == [-2.0]
    assert decode(codes, scales, FIRST)[[3, 200]].tolist() == pytest.approx([2.0, -2.0], rel=0.01)


@pytest.mark.parametrize("which", [FIRST, SECOND])
def test_numbers_without_a_finite_reciprocal_keep_their_size(which: int) -> None:
    value = torch.linspace(0, 1e-40, BLOCK)
    kept = decode(*encode(value, which), which)
    torch.testing.assert_close(kept, value, rtol=0, atol=5e-4 * torch.finfo(torch.float32).tiny)


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_an_element_that_never_has_a_gradient_keeps_moments_of_zero_beside_others_that_have(backend: str) -> None:
    parameter = nn.Parameter(torch.ones(2 * BLOCK))
    optimizer = Lamb([parameter], weight_decay=0.0, moments="8bit", backend=backend)
    for step in range(20):
        parameter.grad = torch.randn(2 * BLOCK, generator=torch.Generator().manual_seed(step))
        parameter.grad[::3] = 0
        optimizer.step()
    ((m, v),) = stored(optimizer)
    assert not m[::3].any()
    assert not v[::3].any()
    assert (parameter[::3] == 1).all()


def test_the_map_has_the_seven_decades_of_its_source() -> None:
    for which, least, negative in ((FIRST, 0.55e-6, 127), (SECOND, 0.325e-6, 0)):
        values = dynamic_map(which, torch.device("cpu"))
        assert len(set(values.tolist())) == 256
        assert values.max() == 1
        assert (values < 0).sum() == negative
        assert values[values > 0].min().item() == pytest.approx(least, rel=1e-6)


def test_stochastic_rounding_is_right_in_the_mean_where_rounding_to_nearest_stands_still() -> None:
    n = 4096
    decayed = torch.full((n,), 0.999)  # a move of less than half a unit in bfloat16's last place
    moment = torch.ones(n, dtype=torch.bfloat16)
    assert (decayed.bfloat16() == 1).all()
    Rounded(moment, Place(0, torch.tensor(1.0), SECOND)).store(decayed, NO)
    assert set(moment.tolist()) == {0.99609375, 1.0}
    error = (moment.double() - decayed.double()).mean().item()
    assert abs(error) < 4 * 2**-8 / 2 / n**0.5  # four standard deviations


@pytest.mark.parametrize("which", [FIRST, SECOND])
def test_codes_are_right_in_the_mean(which: int) -> None:
    n = 1024 * BLOCK
    value = torch.full((n,), 0.3)
    value[::BLOCK] = 1.0
    kept = decode(*encode(value, which, Place(0, torch.tensor(1.0), which).noise(n, FRACTION)), which)
    step = max(kept[1:BLOCK].tolist()) - min(kept.tolist())
    assert abs((kept.double() - value.double()).mean().item()) < 4 * step / 2 / n**0.5


def test_inf_and_nan_stay_what_they_are_in_bfloat16() -> None:
    odd = torch.tensor([float("inf"), float("-inf"), float("nan"), 3.4e38, 0.0, -0.0])
    moment = torch.zeros(len(odd), dtype=torch.bfloat16)
    Rounded(moment, Place(0, torch.tensor(1.0), FIRST)).store(odd, NO)
    assert moment[:2].tolist() == [float("inf"), float("-inf")]
    assert moment[2].isnan()
    assert moment[4:].view(torch.int16).tolist() == [0, -(2**15)]


@pytest.mark.parametrize("moments", ["bfloat16", "8bit"])
def test_narrow_moments_need_float32_weights(moments: Any) -> None:
    with pytest.raises(TypeError, match=f"parameter '0' is torch.float64; moments='{moments}' needs float32 weights"):
        Lamb([nn.Parameter(torch.ones(3, dtype=torch.float64))], moments=moments)
    with pytest.raises(TypeError, match="is not contiguous"):
        Lamb([nn.Parameter(torch.ones(3, 4).t())], moments=moments)
    with pytest.raises(ValueError, match="moments is '4bit'; it must be one of 'full', 'bfloat16', '8bit'"):
        Lamb([nn.Parameter(torch.ones(3))], moments="4bit")  # type: ignore[arg-type]
