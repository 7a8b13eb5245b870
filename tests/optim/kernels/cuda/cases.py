"""Operands of the kernels' tests, and steps of theirs that are compared with the oracle."""

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from optim.kernels.cuda import launch
from optim.kernels.operands import Memory, Operands
from optim.kernels.settings import Settings, table
from optim.reference import lamb_step
from tests.optim.kernels.cuda.interpreted import DEVICE
from tests.optim.oracle import make_tensors

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


def room(elements: int) -> Tensor:
    """Return float32 that begins at an address which 64 divides."""
    bytes_ = torch.empty(elements * 4 + 64, dtype=torch.uint8)
    start = -bytes_.data_ptr() % 64
    return bytes_[start : start + elements * 4].view(torch.float32)


def full(memory: Memory | None = None) -> Operands:
    """Return two aligned tensors with all that can belong to them."""
    weights, grads, means, squares, steps, copies, first, second = ([room(4), room(1)] for _ in range(8))
    settings = table([Settings(), Settings()])
    return Operands(weights, grads, means, squares, steps, copies, first, second, settings, memory or Memory())
