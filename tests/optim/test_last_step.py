"""What a step leaves to look at: names, and a row of numbers for each of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optim import Lamb
from tests.optim.oracle import Oracle, make_tensors

SHAPES = [(5, 3), (4,), (2, 2), (6,)]


def test_names_come_from_named_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    optimizer = Lamb(model.named_parameters())
    model(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()
    assert optimizer.last_step is not None
    assert optimizer.last_step.names == ("0.weight", "0.bias", "1.weight", "1.bias")


def test_rows_follow_the_names_where_dtypes_differ_and_a_gradient_is_missing() -> None:
    dtypes = (torch.float32, torch.float64, torch.float32, torch.float64)
    tensors = [w.to(dtype) for w, dtype in zip(make_tensors(SHAPES, 0), dtypes, strict=True)]
    parameters = [nn.Parameter(tensor) for tensor in tensors]
    optimizer = Lamb([(f"p{i}", p) for i, p in enumerate(parameters)], lr=0.05)
    oracle = Oracle(tensors)
    for step, missing in ((1, None), (2, 0), (3, 3)):
        grads: list[Tensor | None] = [
            None if i == missing else g.to(dtype)
            for i, (g, dtype) in enumerate(zip(make_tensors(SHAPES, step), dtypes, strict=True))
        ]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        made = oracle.step(grads, lr=0.05)
        optimizer.step()
        last = optimizer.last_step
        assert last is not None
        assert sorted(last.names) == [f"p{i}" for i in range(4) if i != missing]
        for number, name in enumerate(last.names):
            wanted = made[int(name[1:])]
            assert last.weight_norm[number].item() == pytest.approx(wanted.weight_norm, rel=1e-5)
            assert last.update_norm[number].item() == pytest.approx(wanted.update_norm, rel=1e-5)
            assert last.trust_ratio[number].item() == pytest.approx(wanted.trust_ratio, rel=1e-5)
        assert len(last.names) == len(last.weight_norm) == len(last.update_norm) == len(last.trust_ratio)


@pytest.mark.parametrize(
    ("switches", "has_norm"),
    [
        ({"skip_nonfinite": False}, False),
        ({"skip_nonfinite": False, "max_grad_norm": 0.0}, False),
        ({"skip_nonfinite": False, "max_grad_norm": 1.0}, True),
        ({}, True),
    ],
)
def test_there_is_a_gradient_norm_only_where_something_asked_for_it(switches: dict[str, Any], has_norm: bool) -> None:
    parameter = nn.Parameter(torch.ones(4))
    parameter.grad = torch.full((4,), 3.0)
    optimizer = Lamb([parameter], **switches)
    optimizer.step()
    last = optimizer.last_step
    assert last is not None
    assert (last.grad_norm is not None) == has_norm
    if last.grad_norm is not None:
        assert last.grad_norm.item() == pytest.approx(6.0)
    assert last.clip_coef.item() == pytest.approx(1 / 6 if switches.get("max_grad_norm") else 1.0)
    assert not last.skipped


def test_a_step_without_gradients_leaves_the_numbers_of_the_one_before() -> None:
    parameter = nn.Parameter(torch.ones(4))
    optimizer = Lamb([parameter])
    parameter.grad = torch.ones(4)
    optimizer.step()
    before = optimizer.last_step
    optimizer.zero_grad()
    optimizer.step()
    assert optimizer.last_step is before
