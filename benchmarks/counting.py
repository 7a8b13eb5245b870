"""What a step moves, holds and launches, counted rather than timed."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

Step = Callable[[], object]
_OVERWRITES = ("copy_", "zero_", "fill_")
_ALLOCATES = ("empty", "new_empty")
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel")


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is untyped
    """Adds up the bytes that torch's operators read and write if nothing stays in cache."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if func.is_view or name.startswith(_ALLOCATES):
            return result
        arguments = func._schema.arguments  # noqa: SLF001 - a dispatch mode has no other way to what is written
        given = dict(zip((each.name for each in arguments), args, strict=False)) | kwargs
        written = [each.name for each in arguments if each.alias_info and each.alias_info.is_write]
        read = [each for each in given if each not in written or (name not in _OVERWRITES and each != "out")]
        self.size += _size(*(given[each] for each in read))
        self.size += _size(*(given.get(each) for each in written)) if written else _size(result)
        return result


def moved_bytes(step: Step) -> int:
    """Return the bytes that a step reads and writes if nothing stays in cache; a kernel of its own counts once."""
    traffic: _Traffic
    with _Traffic() as traffic:  # type: ignore[no-untyped-call]
        step()
    return traffic.size


def state_bytes(optimizer: Optimizer) -> int:
    """Return the size of an optimizer's state; of DTensors that of all ranks together."""
    return sum(tensor.nbytes for state in optimizer.state.values() for tensor in _tensors(list(state.values())))


def temporary_bytes(step: Step, device: str = "cpu") -> int:
    """Return how much more memory torch holds during a step than before it, at the most."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    changes = [event["args"]["Bytes"] for event in _trace(step, ProfilerActivity.CPU) if event["name"] == "[memory]"]
    held = peak = 0
    for change in changes:
        held += change
        peak = max(peak, held)
    return peak


class GpuWork(NamedTuple):
    """What a step asks a GPU for."""

    launches: int
    kernels_s: float
    """The kernels' own times, added up."""


def gpu_work(step: Step) -> GpuWork:
    """Return how many kernels a step launches on the GPU, and how long these take."""
    events = _trace(step, ProfilerActivity.CPU, ProfilerActivity.CUDA)
    microseconds = sum(float(event["dur"]) for event in events if event.get("cat") == "kernel")
    return GpuWork(sum(event["name"].startswith(_LAUNCHES) for event in events), microseconds / 1e6)


def _trace(step: Step, *activities: ProfilerActivity) -> list[dict[str, Any]]:
    """Return the profiler's events of a step in their order."""
    with _quiet(), profile(activities=activities, profile_memory=True) as profiler:
        step()
        if ProfilerActivity.CUDA in activities:
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        with _quiet():
            profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    return sorted((event for event in events if "ts" in event), key=lambda event: float(event["ts"]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep stderr still: the profiler's C++ writes there whatever the level of its log."""
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)


def _size(*values: object) -> int:
    """Return the bytes of all tensors; one that is named twice lies in cache the second time."""
    return sum(tensor.nbytes for tensor in {id(each): each for each in _tensors(values)}.values())


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for each in value for tensor in _tensors(each)] if isinstance(value, list | tuple) else []
