import pytest
import torch
from torch import Tensor
from torch.library import opcheck

import optim.ops  # noqa: F401 - registers the operators
from tests.optim.oracle import make_tensors

SHAPES = [(3, 5), (0, 4), (7,)]


def update_arguments() -> tuple[object, ...]:
    grads, weights, means = (make_tensors(SHAPES, seed, torch.float32) for seed in (1, 2, 3))
    squares = [tensor.square() for tensor in make_tensors(SHAPES, 4, torch.float32)]
    steps = [torch.tensor(2.0) for _ in SHAPES]
    clip, skip = torch.tensor(0.5, dtype=torch.float64), torch.tensor(False)
    return grads, weights, means, squares, steps, clip, skip, 0.9, 0.999, 0.1, 1e-6, 0.01, True


def apply_arguments() -> tuple[object, ...]:
    _, weights, means, squares, steps, *_ = update_arguments()
    return weights, means, squares, steps, torch.rand(len(SHAPES), dtype=torch.float64), 0.9, 0.999, 1e-6, 0.01, True


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sum_squares", (make_tensors(SHAPES, 0, torch.float32),)),
        ("lamb_update", update_arguments()),
        ("lamb_apply", apply_arguments()),
    ],
)
def test_schema_shapes_and_mutations_are_as_declared(name: str, arguments: tuple[object, ...]) -> None:
    opcheck(getattr(torch.ops.bigbatch, name).default, arguments)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_squares_are_summed_in_float64_whatever_the_dtype(dtype: torch.dtype) -> None:
    tensors: list[Tensor] = make_tensors([(1023,), (0,), (17, 3)], 5, dtype)
    expected = torch.tensor([tensor.double().square().sum() for tensor in tensors], dtype=torch.float64)
    torch.testing.assert_close(torch.ops.bigbatch.sum_squares(tensors), expected, rtol=1e-14, atol=0)
