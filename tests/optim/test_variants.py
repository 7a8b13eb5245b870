"""Each named variant against the update that its own source prints, written here with Python's floats."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from optim import VARIANTS, Lamb
from tests.optim.oracle import make_tensors

LR, BETA1, BETA2, EPS, DECAY = 0.05, 0.9, 0.999, 1e-6, 0.01
SHAPES = [(5, 4), (4,)]  # a matrix with weight decay and a bias without
STEPS = 3


class Tensors(NamedTuple):
    """One tensor as a step sees it, elements in a row."""

    w: list[float]
    m: list[float]
    v: list[float]
    weight_decay: float
    t: int


def norm(x: list[float]) -> float:
    return math.sqrt(math.fsum(e * e for e in x))


def adam(x: Tensors, *, bias_correction: bool = True) -> list[float]:
    c1, c2 = (1 - BETA1**x.t, 1 - BETA2**x.t) if bias_correction else (1.0, 1.0)
    return [(m / c1) / (math.sqrt(v / c2) + EPS) + x.weight_decay * w for w, m, v in zip(x.w, x.m, x.v, strict=True)]


def moved(x: Tensors, u: list[float], ratio: float) -> list[float]:
    return [w - LR * ratio * each for w, each in zip(x.w, u, strict=True)]


def paper(x: Tensors) -> list[float]:
    u = adam(x)
    return moved(x, u, norm(x.w) / norm(u))


def mxnet(x: Tensors) -> list[float]:
    u = adam(x)
    return moved(x, u, min(max(norm(x.w), 1e-3), 10.0) / norm(u))


def nvidia(x: Tensors) -> list[float]:
    u = adam(x)
    return moved(x, u, norm(x.w) / norm(u) if x.weight_decay else 1.0)


def deepspeed(x: Tensors) -> list[float]:
    u = adam(x, bias_correction=False)
    return moved(x, u, min(max(norm(x.w) / norm(u), 0.01), 0.3))


def adamw(x: Tensors) -> list[float]:
    return moved(x, adam(x), 1.0)


# The step, and whether gradients are clipped to 1.
ORACLES: dict[str, tuple[Callable[[Tensors], list[float]], bool]] = {
    "paper": (paper, False),
    "mxnet": (mxnet, False),
    "nvidia": (nvidia, True),
    "nvlamb": (paper, True),
    "deepspeed": (deepspeed, False),
    "adamw": (adamw, False),
}


def expected(name: str, weight_scale: float) -> list[list[float]]:
    step, is_clipped = ORACLES[name]
    weights = [[weight_scale * e for e in w.flatten().tolist()] for w in make_tensors(SHAPES, 0)]
    moments = [[[0.0] * len(w) for w in weights] for _ in range(2)]
    for t in range(1, STEPS + 1):
        grads = [g.flatten().tolist() for g in make_tensors(SHAPES, t)]
        total = norm([e for g in grads for e in g])
        clip = 1 / max(1.0, total) if is_clipped else 1.0
        for i, (grad, decay) in enumerate(zip(grads, (DECAY, 0.0), strict=True)):
            g = [clip * e for e in grad]
            m = moments[0][i] = [BETA1 * a + (1 - BETA1) * b for a, b in zip(moments[0][i], g, strict=True)]
            v = moments[1][i] = [BETA2 * a + (1 - BETA2) * b * b for a, b in zip(moments[1][i], g, strict=True)]
            weights[i] = step(Tensors(weights[i], m, v, decay, t))
    return weights


def made(name: str, weight_scale: float, **changes: Any) -> list[list[float]]:
    parameters = [nn.Parameter(weight_scale * w) for w in make_tensors(SHAPES, 0)]
    groups: list[dict[str, Any]] = [{"params": [parameters[0]]}, {"params": [parameters[1]], "weight_decay": 0.0}]
    optimizer = Lamb(groups, lr=LR, **{**VARIANTS[name], **changes})
    for t in range(1, STEPS + 1):
        for parameter, grad in zip(parameters, make_tensors(SHAPES, t), strict=True):
            parameter.grad = grad
        optimizer.step()
    return [parameter.detach().flatten().tolist() for parameter in parameters]


@pytest.mark.parametrize("weight_scale", [1.0, 30.0])  # norms below and above the bounds of those that have some
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_computes_what_its_source_does(name: str, weight_scale: float) -> None:
    for got, wanted in zip(made(name, weight_scale), expected(name, weight_scale), strict=True):
        assert got == pytest.approx(wanted, rel=1e-12, abs=1e-14)


def test_no_two_variants_are_the_same() -> None:
    results = [made(name, 30.0)[number] for name in VARIANTS for number in (0, 1)]
    pairs = list(zip(results[::2], results[1::2], strict=True))
    assert all(pairs[i] != pairs[j] for i in range(len(pairs)) for j in range(i))


def test_a_variant_takes_changes_like_any_arguments() -> None:
    assert made("nvlamb", 1.0, max_grad_norm=None) == made("paper", 1.0)


def test_an_adapted_group_is_named_true_false_or_decayed() -> None:
    with pytest.raises(ValueError, match="layer_adaptation is 'sometimes'; it must be True, False or 'decayed'"):
        Lamb([nn.Parameter(torch.ones(1))], layer_adaptation="sometimes")  # type: ignore[arg-type]
