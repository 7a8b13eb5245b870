"""The step in one launch: the bits of three launches, and an order in which tensors are still in the cache."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from optim.kernels.cuda import launch, tables
from optim.kernels.operands import Operands
from tests.optim.kernels.cuda.cases import (
    CHUNKS,
    SHAPES,
    as_bits,
    both_passes,
    clip_of,
    follow_the_oracle,
    make_operands,
    rates,
    written,
)
from tests.optim.kernels.cuda.interpreted import DEVICE, on_device
from tests.optim.kernels.cuda.test_moments import narrow

SIZES = [(1,), (0, 3), (17,), (launch.CHUNK_AT_ONCE * 2 + 2,), (), (0,), (13, 29), (launch.CHUNK_AT_ONCE,)]

FORMATS: dict[str, tuple[torch.dtype, torch.dtype | None, str | None]] = {
    "float32": (torch.float32, None, None),
    "float64": (torch.float64, None, None),
    "bfloat16": (torch.bfloat16, None, None),
    "float16": (torch.float16, None, None),
    "masters": (torch.float32, torch.bfloat16, None),
    "masters, bfloat16 moments": (torch.float32, torch.float16, "bfloat16"),
    "bfloat16 moments": (torch.float32, None, "bfloat16"),
    "8bit": (torch.float32, None, "8bit"),
}
"""Dtypes of weights and of gradients and copies, and how moments are stored."""


def make(which: str, offset: int) -> Operands:
    dtype, grads, moments = FORMATS[which]
    case = make_operands(SIZES, dtype, grads, offset)
    return narrow(case, moments) if moments else case


def in_one_launch(operands: Operands, clip: Tensor) -> Tensor:
    return step(operands, clip, "step_at_once")


def in_three(operands: Operands, clip: Tensor) -> Tensor:
    return step(operands, clip, "step")


def step(operands: Operands, clip: Tensor, how: str) -> Tensor:
    """Take a step with the chunks of one launch, on whose size the order of sums depends."""
    norms = torch.empty(4, len(operands), dtype=torch.float64, device=DEVICE)
    getattr(launch._Call(operands, launch.CHUNK_AT_ONCE), how)(clip, rates(operands), norms)
    return norms


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("which", FORMATS)
@on_device
def test_one_launch_leaves_the_bits_of_three_step_after_step(which: str, offset: int) -> None:
    one, three = (make(which, offset) for _ in range(2))
    for skips in (False, False, True, False):
        norms = []
        for case in (one, three):
            clip = clip_of(case, 1.0)
            clip[2] = float(skips)
            norms.append((in_one_launch if case is one else in_three)(case, clip))
        assert as_bits([norms[0]]) == as_bits([norms[1]])
        assert as_bits(written(one)) == as_bits(written(three))
    assert {step.item() for step in one.steps} == {5.0}


@pytest.mark.parametrize("lag", [0, 3, 1000])
@on_device
def test_how_far_the_passes_lie_apart_changes_no_bit(lag: int) -> None:
    launch.LAG, before = lag, launch.LAG
    try:
        one, three = (make_operands(SIZES, torch.float32) for _ in range(2))
        clip = clip_of(one, 1.0)
        assert as_bits([in_one_launch(one, clip)]) == as_bits([in_three(three, clip)])
        assert as_bits(written(one)) == as_bits(written(three))
    finally:
        launch.LAG = before


@pytest.mark.parametrize("switches", [{}, {"max_grad_norm": 1e-3}, {"layer_adaptation": False}], ids=str)
@on_device
def test_one_launch_follows_the_oracle(switches: dict[str, Any]) -> None:
    follow_the_oracle(make_operands([*SHAPES, *CHUNKS]), in_one_launch, 1e-12, 1e-14, **switches)


@on_device
def test_tensors_that_come_or_go_between_steps_begin_to_count_anew() -> None:
    few, many = (make_operands(sizes, torch.float32) for sizes in (SIZES[:4], SIZES))
    for case in (few, many, few):
        case.memory = many.memory
        expected = make_operands(SIZES[: len(case)], torch.float32)
        for each, copy in zip(written(case), written(expected), strict=True):
            copy.copy_(each)
        clip = clip_of(case, 1.0)
        assert torch.equal(in_one_launch(case, clip), in_three(expected, clip))
        assert as_bits(written(case)) == as_bits(written(expected))


@pytest.mark.parametrize("at_once", [True, False])
@on_device
def test_one_setting_decides_how_a_step_is_launched(at_once: bool) -> None:
    launch.AT_ONCE = at_once
    try:
        case, other = (make_operands(SIZES, torch.float32) for _ in range(2))
        clip = clip_of(case, 1.0)
        launch.lamb_step(case, clip, rates(case))
        held = launch.CHUNK_AT_ONCE, case.numels, launch._lag(DEVICE)
        assert case.memory.holds("order", (DEVICE, held)) is at_once
        (in_one_launch if at_once else both_passes)(other, clip)
        assert as_bits(written(case)) == as_bits(written(other))
    finally:
        launch.AT_ONCE = False


def flat(chunks: list[int], lag: int) -> list[int]:
    return [item for part in tables.in_order(chunks, lag) for item in part]


def firsts(items: list[int]) -> Iterator[int]:
    return (item // 2 for item in items if item % 2 == 0)


@pytest.mark.parametrize("lag", [0, 1, 2, 5, 100])
@pytest.mark.parametrize("chunks", [[1], [3], [1, 1, 1], [4, 1, 7, 2], [1, 20, 1, 1, 3]])
def test_every_chunk_is_passed_over_twice_and_the_second_time_when_its_tensor_is_through(
    chunks: list[int], lag: int
) -> None:
    items = flat(chunks, lag)
    assert sorted(items) == list(range(2 * sum(chunks)))
    assert list(firsts(items)) == list(range(sum(chunks)))
    begin = 0
    for count in chunks:
        through = items.index(2 * (begin + count - 1))
        seconds = [items.index(2 * chunk + 1) for chunk in range(begin, begin + count)]
        assert min(seconds) > through
        assert seconds == sorted(seconds, reverse=True)
        begin += count


def test_the_second_pass_lies_as_many_items_behind_the_first_as_are_asked_for() -> None:
    first, second, third = (0, 2), (4, 6, 8), (10, 12)
    assert flat([2, 3, 2], 2) == [*first, *second[:2], 3, 1, *second[2:], *third, 9, 7, 5, 13, 11]
