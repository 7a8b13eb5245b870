"""What torch's profiler saw of some steps: when the GPU worked, where the host waited for it, what it launched."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch.autograd.profiler_util import FunctionEvent

CALLS = ("cuda", "cuMem", "cuStream", "cuEvent", "cuCtx")
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
MOST = 12
"""Rows of each list."""


@dataclass(frozen=True)
class Event:
    """One thing that was done, on the host or on the GPU; times in microseconds."""

    name: str
    begin_us: float
    end_us: float
    on_gpu: bool
    within: tuple[str, ...] = ()
    """The operators that it was called in, the nearest first."""


@dataclass(frozen=True)
class Line:
    """What came of all events of one kind, each figure for one step."""

    name: str
    times: float
    ms: float


@dataclass(frozen=True)
class Profile:
    """One step, as the mean of those that were profiled."""

    steps: int
    step_ms: float
    gpu_busy_ms: float | None
    """Time in which at least one kernel or copy ran; None where there is no GPU."""
    launches: float
    waits: tuple[Line, ...]
    """CUDA calls beside launches, with the operators that made them, the longest first. Those that synchronize, copy to
    the host or allocate wait for the GPU."""
    copies: tuple[Line, ...]
    """Copies by direction and kind of memory: from `Pageable` memory a copy is no upload beside the work."""
    longest: tuple[Line, ...]
    """Kernels on a GPU, or operators on a CPU, by their own time."""


def events_of(found: Iterable[FunctionEvent]) -> list[Event]:
    """Return the events of a profiler, `profile.events()`; on a CPU each with its own time only, not its children's."""
    events = []
    for event in found:
        if event.is_user_annotation:  # a range around other events, which the GPU's timeline has as well
            continue
        on_gpu = event.device_type.name == "CUDA"
        begin = event.time_range.start
        is_own = not on_gpu and not event.name.startswith("cuda")
        end = begin + event.self_cpu_time_total if is_own else event.time_range.end
        events.append(Event(event.name, begin, end, on_gpu, _within(event)))
    return events


def profile(events: Sequence[Event], steps: int, seconds: float) -> Profile:
    """Sum up the events of so many steps that took so many seconds."""
    gpu = [event for event in events if event.on_gpu]
    host = [event for event in events if not event.on_gpu]
    calls = [event for event in host if event.name.startswith(CALLS) and event.name not in LAUNCHES]
    kernels = [event for event in gpu if not event.name.startswith(("Memcpy", "Memset"))]
    return Profile(
        steps=steps,
        step_ms=seconds * 1e3 / steps,
        gpu_busy_ms=_covered_us(gpu) / 1e3 / steps if gpu else None,
        launches=sum(event.name in LAUNCHES for event in host) / steps,
        waits=_lines([(" < ".join((event.name, *event.within)), event) for event in calls], steps),
        copies=_lines([(event.name, event) for event in gpu if event.name.startswith("Memcpy")], steps),
        longest=_lines([(event.name, event) for event in kernels or host], steps),
    )


def _within(event: FunctionEvent) -> tuple[str, ...]:
    names: list[str] = []
    parent = event.cpu_parent
    while parent is not None and len(names) < 4:
        names.append(parent.name)
        parent = parent.cpu_parent
    return tuple(names)


def _covered_us(events: Iterable[Event]) -> float:
    """Return the time in which at least one of the events went on."""
    covered, until = 0.0, float("-inf")
    for event in sorted(events, key=lambda each: each.begin_us):
        covered += max(0.0, event.end_us - max(event.begin_us, until))
        until = max(until, event.end_us)
    return covered


def _lines(named: Iterable[tuple[str, Event]], steps: int) -> tuple[Line, ...]:
    times, us = Counter[str](), defaultdict[str, float](float)
    for name, event in named:
        times[name] += 1
        us[name] += event.end_us - event.begin_us
    most = sorted(us, key=us.__getitem__, reverse=True)[:MOST]
    return tuple(Line(name, times[name] / steps, us[name] / 1e3 / steps) for name in most)
