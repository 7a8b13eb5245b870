import pytest
import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from benchmarks.card.traced import Event, events_of, profile

TWO_STEPS = [
    Event("aten::mm", 0, 50, on_gpu=False),
    Event("cudaLaunchKernel", 10, 20, on_gpu=False, within=("aten::mm",)),
    Event("cudaLaunchKernel", 20, 30, on_gpu=False, within=("aten::mm",)),
    Event("cudaStreamSynchronize", 30, 2030, on_gpu=False, within=("aten::item", "aten::index")),
    Event("gemm", 100, 1100, on_gpu=True),
    Event("gemm", 600, 1600, on_gpu=True),
    Event("Memcpy HtoD (Pageable -> Device)", 3000, 3400, on_gpu=True),
]


def test_the_gpu_is_busy_while_anything_runs_on_it_and_overlaps_count_once() -> None:
    found = profile(TWO_STEPS, steps=2, seconds=0.008)
    assert found.step_ms == pytest.approx(4.0)
    assert found.gpu_busy_ms == pytest.approx((1.5 + 0.4) / 2)


def test_launches_waits_copies_and_kernels_are_told_apart_for_each_step() -> None:
    found = profile(TWO_STEPS, steps=2, seconds=0.008)
    assert found.launches == 1
    assert [(line.name, line.times, line.ms) for line in found.waits] == [
        ("cudaStreamSynchronize < aten::item < aten::index", 0.5, 1.0)
    ]
    assert [line.name for line in found.copies] == ["Memcpy HtoD (Pageable -> Device)"]
    assert [(line.name, line.times, line.ms) for line in found.longest] == [("gemm", 1.0, 1.0)]


def test_on_a_cpu_the_operators_stand_with_their_own_time() -> None:
    matrix = torch.randn(1000, 1000)
    with profiler(activities=[ProfilerActivity.CPU]) as seen:
        torch.nn.functional.linear(matrix, matrix)
    found = profile(events_of(seen.events() or []), steps=1, seconds=0.01)
    names = [line.name for line in found.longest]
    assert names[0] == "aten::mm"  # what `linear` calls, though `linear` takes longer as a whole
    assert "aten::linear" in names
    assert found.gpu_busy_ms is None
    assert (found.launches, found.waits, found.copies) == (0, (), ())
