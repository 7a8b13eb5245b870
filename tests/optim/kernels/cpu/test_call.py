"""The compiled kernel against the oracle, and what it promises that no single step can show."""

from typing import Any

import pytest
import torch
from torch import Tensor

from optim import backend
from optim.calls import settings_of
from optim.kernels import eager
from optim.kernels.cpu import call as cpu
from optim.kernels.settings import table
from optim.reference import lamb_step
from tests.optim.kernels.test_eager import bits
from tests.optim.oracle import make_tensors
from tests.optim.test_lamb import SWITCHES

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
Lists = tuple[list[Tensor], ...]


@pytest.fixture(autouse=True)
def threads() -> Any:
    """Leave the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make_lists(shapes: list[tuple[int, ...]] = SIZES, dtype: torch.dtype = torch.float64, offset: int = 0) -> Lists:
    """Return gradients, weights, first and second moments and steps; `offset` elements away from what is aligned."""

    def place(tensor: Tensor) -> Tensor:
        room = torch.empty(tensor.numel() + offset, dtype=dtype)[offset:].view(tensor.shape)
        return room.copy_(tensor)

    grads, weights, means, squares = ([place(t) for t in make_tensors(shapes, seed)] for seed in range(4))
    for square in squares:  # not so near 0 that half precision rounds away what the update divides by
        square.square_().add_(0.01)
    return grads, weights, means, squares, [torch.tensor(2.0) for _ in shapes]


def clip_of(factor: float = 1.0, skip: bool = False) -> Tensor:
    return torch.tensor([0.0, factor, skip], dtype=torch.float64)


def settings_for(count: int, switches: dict[str, Any]) -> Tensor:
    rest = {name: switches.get(name, True) for name in ("bias_correction", "grad_averaging")}
    return table(((settings_of(DEFAULTS | switches, **rest), count),))


def rates(count: int) -> Tensor:
    return torch.full((count,), LR, dtype=torch.float64)


def both_passes(lists: Lists, clip: Tensor, settings: Tensor) -> Tensor:
    """Do as `lamb_step` does, by the operators that ranks use which share their tensors."""
    grads, weights, means, squares, steps = lists
    moments: tuple[list[Tensor], ...] = (means, squares, [], steps)
    sums = cpu.lamb_update(grads, weights, *moments, clip, settings)
    norms = eager.lamb_ratio(sums, clip, rates(len(grads)), settings)
    cpu.lamb_apply(weights, [], *moments, norms[3], settings)
    return norms


def whole_step(lists: Lists, clip: Tensor, settings: Tensor) -> Tensor:
    grads, weights, means, squares, steps = lists
    norms: Tensor = cpu.lamb_step(grads, weights, [], means, squares, [], steps, clip, rates(len(grads)), settings)
    return norms


def follow_the_oracle(lists: Lists, settings: dict[str, Any], take: Any, rtol: float, atol: float) -> None:
    """Take a step from step 2 and compare all that it leaves with the oracle."""
    before = [[tensor.clone() for tensor in each] for each in lists[:4]]
    grad_norm = sum(g.double().square().sum() for g in before[0]) ** 0.5
    limit = settings.get("max_grad_norm")
    clip = 1 / max(1.0, float(grad_norm) / limit) if limit else 1.0
    norms = take(lists, clip_of(clip), settings_for(len(lists[0]), settings))
    for i in range(len(lists[0])):
        g, w, m, v = (each[i] for each in before)
        made = lamb_step(w, g, m, v, 3, lr=LR, grad_norm=float(grad_norm), **settings)
        for got, expected in zip((lists[1][i], lists[2][i], lists[3][i]), made[:3], strict=True):
            torch.testing.assert_close(got.double(), expected, rtol=rtol, atol=atol)
        assert norms[:, i].tolist() == pytest.approx([*made[3:6], LR * made.trust_ratio], rel=rtol)
        assert lists[0][i].equal(g)
        assert lists[4][i] == 3


def test_this_machine_has_the_compiled_kernel() -> None:
    assert backend("cpu").name == "fused"
    assert "lamb-" in backend("cpu").reason
    assert backend("meta").name == "eager"


@pytest.mark.parametrize("take", [whole_step, both_passes])
@pytest.mark.parametrize("settings", [{}, *SWITCHES], ids=str)
def test_every_shape_follows_the_oracle_for_every_switch(settings: dict[str, Any], take: Any) -> None:
    follow_the_oracle(make_lists(), settings, take, rtol=1e-12, atol=1e-14)


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
    follow_the_oracle(make_lists(dtype=dtype, offset=offset), {"max_grad_norm": 1.0}, take, rtol, atol)


@pytest.mark.parametrize("take", [whole_step, both_passes])
def test_tensors_that_are_not_contiguous_are_stepped_among_the_others(take: Any) -> None:
    lists = make_lists([(4, 6), (300, 401), (9,), (20, 30)])
    for each in lists[:4]:
        each[1] = each[1].t()
        each[2] = each[2][::2]
    follow_the_oracle(lists, {"max_grad_norm": 1.0}, take, rtol=1e-12, atol=1e-14)


MANY = [(70_000,), (3,), (500, 1001), *[(5,)] * 200, (16384,), (16385,)]  # several groups, blocks and threads


@pytest.mark.parametrize("take", [whole_step, both_passes])
@pytest.mark.parametrize("dtype", cpu.DTYPES)
def test_any_number_of_threads_gives_the_same_bits(dtype: torch.dtype, take: Any) -> None:
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        lists = make_lists(MANY, dtype)
        norms = take(lists, clip_of(0.5), settings_for(len(MANY), {}))
        results.append([norms, *(tensor for each in lists for tensor in each)])
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", cpu.DTYPES)
def test_a_step_at_once_is_that_in_two_passes(dtype: torch.dtype) -> None:
    one, other = make_lists(MANY, dtype), make_lists(MANY, dtype)
    arguments = (clip_of(0.5), settings_for(len(MANY), {}))
    # Square roots of PyTorch may be off by one unit in the last place of float64.
    torch.testing.assert_close(whole_step(one, *arguments), both_passes(other, *arguments), rtol=1e-15, atol=0)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).tiny)
    for mine, theirs in zip(one[2:], other[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("take", [whole_step, both_passes])
def test_a_skipped_step_keeps_every_bit_and_tells_the_weight_norm(take: Any) -> None:
    lists = make_lists([(2, 8), (9,)], torch.float32)
    lists[0][0].fill_(float("nan"))
    lists[2][0][0, :3] = torch.tensor([-0.0, 0.0, -1e-45])
    before = [bits(each) for each in lists[1:]]
    norms = take(lists, clip_of(float("nan"), skip=True), settings_for(2, {}))
    assert [bits(each) for each in lists[1:]] == before
    assert norms[0].tolist() == pytest.approx([w.double().norm().item() for w in lists[1]])
    assert norms[1:].tolist() == [[0, 0], [1, 1], [0, 0]]


def test_a_scale_of_zero_keeps_every_bit_whatever_the_update() -> None:
    _, weights, means, squares, steps = make_lists([(2, 8)], torch.float32)
    weights[0][0, :4] = torch.tensor([-0.0, 0.0, float("inf"), -1e-45])
    means[0][1] = float("nan")
    before = bits(weights)
    scale = torch.zeros(1, dtype=torch.float64)
    cpu.lamb_apply(weights, [], means, squares, [], steps, scale, settings_for(1, {}))
    assert bits(weights) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_and_rounded_as_pytorch_does(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    between = torch.linspace(0.0, 70000.0, 2**16) if dtype is torch.float16 else torch.linspace(0.0, 1e30, 2**16)
    tiny = torch.linspace(0.0, 1e-4, 2**16)
    for weights in (every, between.to(dtype), tiny.to(dtype)):
        # With first moment w, no second one and eps 1, u is w to float32 and w - scale·u is (1 - scale)·w.
        w, m, v = [weights.clone()], [weights.clone()], [torch.zeros_like(weights)]
        scale = torch.tensor([0.3], dtype=torch.float64)
        settings = settings_for(1, {"eps": 1.0, "weight_decay": 0.0, "bias_correction": False})
        cpu.lamb_apply(w, [], m, v, [], [torch.tensor(1.0)], scale, settings)
        expected = (weights.float() - torch.tensor(0.3) * weights.float()).to(dtype)
        near = (
            torch.nextafter(expected, expected.new_tensor(float("inf"))),
            torch.nextafter(expected, expected.new_tensor(float("-inf"))),
        )
        same = (w[0] == expected) | (expected.isnan() & w[0].isnan())
        assert (same | (w[0] == near[0]) | (w[0] == near[1])).all()
        assert same.float().mean() > 0.99


def test_what_is_written_counts_as_modified_in_place() -> None:
    lists = make_lists([(3,)])
    (weight,) = lists[1]
    loss = weight.requires_grad_().square().sum()
    with torch.no_grad():
        grads, weights, means, squares, steps = lists
        rest = (clip_of(), rates(1), settings_for(1, {}))
        torch.ops.bigbatch.lamb_step(grads, weights, [], means, squares, [], steps, *rest)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)
