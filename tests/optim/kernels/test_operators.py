from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from optim.kernels import eager, operators
from optim.kernels.moments import BLOCK
from optim.kernels.operands import Operand
from optim.kernels.settings import Settings, table
from optim.reference import lamb_step
from tests.optim.oracle import make_tensors

SHAPES = [(3, 5), (0, 4), (7,)]
COUNT = len(SHAPES)
CLIP = torch.tensor([2.0, 0.5, 0.0], dtype=torch.float64)
SETTINGS = table([Settings()] * COUNT)
RATES = torch.full((COUNT,), 0.05, dtype=torch.float64)


def full() -> dict[str, list[Tensor]]:
    """Return the lists of a call, all of float32."""
    grads, weights, means = (make_tensors(SHAPES, seed, torch.float32) for seed in (1, 2, 3))
    squares = [tensor.square() for tensor in make_tensors(SHAPES, 4, torch.float32)]
    steps = [torch.tensor(2.0) for _ in SHAPES]
    return {"grads": grads, "weights": weights, "copies": [], "m": means, "v": squares, "scales": [], "steps": steps}


def masters() -> dict[str, list[Tensor]]:
    """Return lists with half-precision parameters."""
    lists = full()
    half = [weight.bfloat16() for weight in lists["weights"]]
    return lists | {"grads": [grad.bfloat16() for grad in lists["grads"]], "copies": half}


def eight_bit() -> dict[str, list[Tensor]]:
    """Return lists with quantised moments."""
    lists = full()
    codes = {key: [torch.full(shape, 200, dtype=torch.uint8) for shape in SHAPES] for key in ("m", "v")}
    scales = [torch.ones(-(-tensor.numel() // BLOCK)) for _ in codes for tensor in lists["weights"]]
    return lists | codes | {"scales": scales}


def arguments(name: str, lists: dict[str, list[Tensor]]) -> tuple[Any, ...]:
    moments = tuple(lists[key] for key in ("m", "v", "scales", "steps"))
    sums = torch.rand(2, COUNT, dtype=torch.float64)
    return {
        "sum_squares": (lists["grads"],),
        "lamb_clip": (sums.view(-1), 1.0, True),
        "lamb_update": (lists["grads"], lists["weights"], lists["copies"], *moments, CLIP, SETTINGS),
        "lamb_ratio": (sums, CLIP, RATES, SETTINGS),
        "lamb_apply": (lists["weights"], lists["copies"], *moments, sums[0], SETTINGS),
        "lamb_step": (lists["grads"], lists["weights"], lists["copies"], *moments, CLIP, RATES, SETTINGS),
    }[name]


@pytest.mark.parametrize("lists", [full, masters, eight_bit])
@pytest.mark.parametrize("name", ["sum_squares", "lamb_clip", "lamb_update", "lamb_ratio", "lamb_apply", "lamb_step"])
def test_schema_shapes_and_mutations_are_as_declared(name: str, lists: Callable[[], dict[str, list[Tensor]]]) -> None:
    opcheck(getattr(torch.ops.bigbatch, name).default, arguments(name, lists()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_squares_are_summed_in_float64_whatever_the_dtype(dtype: torch.dtype) -> None:
    tensors: list[Tensor] = make_tensors([(1023,), (0,), (17, 3)], 5, dtype)
    expected = torch.tensor([tensor.double().square().sum() for tensor in tensors], dtype=torch.float64)
    torch.testing.assert_close(torch.ops.bigbatch.sum_squares(tensors), expected, rtol=1e-14, atol=0)


def test_lists_with_tensors_that_are_not_contiguous_follow_the_oracle() -> None:
    shapes = [(4, 6), (300, 401), (9,), (20, 30)]
    grads, weights, means, squares = (make_tensors(shapes, seed) for seed in range(4))
    for each in (grads, weights, means, squares):
        each[1], each[2] = each[1].t(), each[2][::2]
    squares = [square.square_() for square in squares]
    before = [tuple(tensor.clone() for tensor in row) for row in zip(weights, grads, means, squares, strict=True)]
    steps, settings = [torch.tensor(2.0) for _ in shapes], table([Settings(beta3=1 - 0.9)] * 4)
    lr, clip = torch.full((4,), 0.05, dtype=torch.float64), torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    norms = torch.ops.bigbatch.lamb_step(grads, weights, [], means, squares, [], steps, clip, lr, settings)
    for i, (weight, grad, mean, square) in enumerate(before):
        made = lamb_step(weight, grad, mean, square, 3, lr=0.05)
        torch.testing.assert_close(weights[i], made.weight, rtol=1e-12, atol=1e-14)
        assert norms[2, i].item() == pytest.approx(made.trust_ratio, rel=1e-12)


def test_a_tensor_of_a_subclass_goes_through_the_dispatcher_and_others_to_their_kernels() -> None:
    class Watched(Tensor):
        """Somebody's own."""

    one = torch.ones(3)
    plain = Operand(one, one, one, one, torch.ones(()))
    chosen = [operators.fastest(each) for each in (plain, plain._replace(weight=one.as_subclass(Watched)))]
    assert [kernels.backend().name for kernels in chosen] == [operators.backend("cpu").name, "dispatched"]
    assert operators.BACKENDS["eager"](plain) is eager


def test_a_device_without_kernels_is_plain_pytorch_and_says_so() -> None:
    assert operators.backend("meta") == ("eager", "there is no kernel for meta")
