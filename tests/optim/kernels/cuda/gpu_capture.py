"""Steps that a CUDA graph has captured, which need a GPU: `scripts/gpu-check` runs these tests.

The name is not that of a file of tests, so no other run collects it. A graph uploads tables at each replay and not at
the capture, from host memory that must stay as it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optim import Lamb
from optim.kernels.cuda import launch
from optim.kernels.operands import Operands
from tests.optim.kernels.cuda.cases import CHUNKS, as_bits, clip_of, make_operands, whole_step, written
from tests.optim.oracle import make_tensors

SHAPES = [(40,), (3, 9), (20_000,)]
FIRST, SECOND, THIRD = 0.05, 0.2, 0.01
"""Learning rates."""


@pytest.fixture(autouse=True, params=[False, True], ids=["three launches", "one launch"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Capture both kinds of steps."""
    monkeypatch.setattr(launch, "AT_ONCE", request.param)


def make(lr: float | Tensor = FIRST) -> Lamb:
    """Return an optimizer with two groups that has taken a step; the first group has the rate `lr`."""
    parameters = [nn.Parameter(tensor.cuda()) for tensor in make_tensors(SHAPES, 0, torch.float32)]
    for parameter, gradient in zip(parameters, make_tensors(SHAPES, 1, torch.float32), strict=True):
        parameter.grad = gradient.cuda()
    groups: list[dict[str, Any]] = [{"params": parameters[:2], "lr": lr}, {"params": parameters[2:], "lr": FIRST}]
    optimizer = Lamb(groups, max_grad_norm=1.0)
    optimizer.step()
    return optimizer


def set_rate(lr: float, *optimizers: Lamb) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr


def captured(optimizer: Lamb) -> torch.cuda.CUDAGraph:
    """Return a graph of one step, which is not taken yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    overwrite_freed_host_memory()
    return graph


def overwrite_freed_host_memory() -> None:
    """Write into pinned memory that nobody holds; a graph that reads freed memory finds other numbers there."""
    torch.cuda.synchronize()
    held = [torch.full((2**i,), -1, pin_memory=True) for i in range(13) for _ in range(8)]
    assert all(tensor.is_pinned() for tensor in held)


def assert_same_bits(one: Lamb, other: Lamb) -> None:
    torch.cuda.synchronize()
    for group, others in zip(one.param_groups, other.param_groups, strict=True):
        for p, q in zip(group["params"], others["params"], strict=True):
            assert torch.equal(p, q)
            assert all(torch.equal(one.state[p][key], other.state[q][key]) for key in ("step", "exp_avg", "exp_avg_sq"))


@contextmanager
def without_waiting() -> Iterator[None]:
    """Make every wait of the host for the device an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


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


def test_gradients_that_are_made_within_the_capture_are_read_at_every_replay() -> None:
    optimizer, expected = make(), make()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        double_gradients(optimizer)
        optimizer.step()
    overwrite_freed_host_memory()
    double_gradients(expected)
    for _ in range(3):
        graph.replay()
        expected.step()
    assert_same_bits(optimizer, expected)


def double_gradients(optimizer: Lamb) -> None:
    """Put other tensors in place of the gradients."""
    for parameter in (each for group in optimizer.param_groups for each in group["params"]):
        parameter.grad = parameter.grad * 2


def test_a_rate_that_changed_before_the_capture_is_that_of_every_replay() -> None:
    optimizer, expected = make(), make()
    set_rate(SECOND, optimizer, expected)
    graph = captured(optimizer)
    for _ in range(3):
        graph.replay()
        expected.step()
        overwrite_freed_host_memory()
    assert_same_bits(optimizer, expected)


@pytest.mark.parametrize("later", [SECOND, THIRD])
def test_a_step_after_a_capture_has_its_own_rate_though_nothing_was_replayed(later: float) -> None:
    optimizer, expected = make(), make()
    set_rate(SECOND, optimizer)
    graph = captured(optimizer)
    set_rate(later, optimizer, expected)
    for each in (optimizer, expected):
        each.step()
    assert_same_bits(optimizer, expected)
    graph.replay()
    set_rate(SECOND, expected)
    expected.step()
    assert_same_bits(optimizer, expected)


def test_a_rate_in_a_tensor_is_read_at_each_replay_beside_one_that_is_a_number() -> None:
    rate, rate_of_expected = (torch.tensor(FIRST, device="cuda") for _ in range(2))
    optimizer, expected = make(rate), make(rate_of_expected)
    graph = captured(optimizer)
    for lr in (SECOND, THIRD):
        rate.fill_(lr)
        rate_of_expected.fill_(lr)
        graph.replay()
        expected.step()
    assert_same_bits(optimizer, expected)


@pytest.mark.parametrize("in_a_tensor", [False, True])
def test_the_host_waits_for_no_upload_of_a_rate(in_a_tensor: bool) -> None:
    optimizer = make(torch.full((), FIRST, device="cuda") if in_a_tensor else FIRST)
    with without_waiting():
        for lr in (SECOND, THIRD):
            optimizer.param_groups[1]["lr"] = lr
            optimizer.step()
