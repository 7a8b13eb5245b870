"""What is measured: the rows of the table and the machine that they hold for."""

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks.bert import count
from benchmarks.counting import GpuWork
from benchmarks.timing import COPY_BYTES, WARM_UP
from optim import backend


@dataclass(frozen=True)
class Result:
    """One contender on one model with one number of ranks and threads; figures in bytes are for each parameter."""

    model: str
    ranks: int
    threads: int  # of each rank
    name: str
    step_s: float  # median, of the slowest rank
    fastest_s: float
    slowest_s: float
    over_adamw: float  # median over the turns of the ratio within a turn, as all ratios are
    over_half: float | None  # several ranks ÷ the fraction of one rank's step that is theirs
    moved_bytes: float  # read and written if nothing stays in cache
    copy_bytes_s: float  # bytes a second of a large copy with as many ranks and threads
    of_copy: float  # moved bytes a second ÷ those of the copy
    state_bytes: float
    collectives: int | None  # of each rank in a step
    temporary_bytes: float | None  # held beside parameters, gradients and state at the worst moment; one rank only
    launches: int | None  # kernels launched on a GPU
    kernels_s: float | None = None  # their own times, added up


@dataclass(frozen=True)
class Machine:
    """Where and with what it was measured."""

    processor: str
    cores: int
    memory_gib: float
    gpu: str | None
    versions: dict[str, str]
    kernel: str  # ours, and why if it is plain PyTorch
    turns: int
    warm_up: int = WARM_UP


@dataclass(frozen=True)
class Report:
    """One run."""

    machine: Machine
    results: list[Result]
    left_out: list[str]  # what was asked for and could not be measured


@dataclass(frozen=True)
class Setting:
    """What a number of contenders are measured on."""

    model: str
    ranks: int
    threads: int  # of each rank
    turns: int
    device: str = "cpu"


def result(
    setting: Setting,
    name: str,
    seconds: Sequence[float],
    baseline: Sequence[float],
    copy: Sequence[float],
    moved_bytes: float,
    state_bytes: float,
    *,
    whole: Sequence[float] | None = None,
    collectives: int | None = None,
    temporary_bytes: float | None = None,
    on_gpu: GpuWork | None = None,
) -> Result:
    """Return the row of what was measured: seconds of the turns, bytes for each parameter.

    `baseline` and `copy` have the baseline's steps and copies on every rank in the same turns, and `whole` the
    contender's steps on one rank.
    """
    copied = COPY_BYTES * setting.ranks
    return Result(
        model=setting.model,
        ranks=setting.ranks,
        threads=setting.threads,
        name=name,
        step_s=statistics.median(seconds),
        fastest_s=min(seconds),
        slowest_s=max(seconds),
        over_adamw=_ratio(seconds, baseline),
        over_half=_ratio(seconds, whole) * setting.ranks if whole else None,
        moved_bytes=moved_bytes,
        copy_bytes_s=copied / statistics.median(copy),
        of_copy=_ratio(copy, seconds) * moved_bytes * count(setting.model) / copied,
        state_bytes=state_bytes,
        collectives=collectives,
        temporary_bytes=temporary_bytes,
        launches=on_gpu and on_gpu.launches,
        kernels_s=on_gpu and on_gpu.kernels_s,
    )


def _ratio(seconds: Sequence[float], reference: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))


def this_machine(device: str, turns: int) -> Machine:
    """Describe the machine."""
    used = backend(device)
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpu=torch.cuda.get_device_name() if device == "cuda" else None,
        versions={"python": platform.python_version(), "torch": torch.__version__} | _others(),
        kernel=used.name if used.name != "eager" else f"{used.name}, {used.reason}",  # else it names a file
        turns=turns,
    )


def _processor() -> str:
    """Return what lscpu says, family and model included: a virtual machine's name alone may say little."""
    try:
        output = subprocess.run(["lscpu"], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}).stdout  # noqa: S607
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in output.splitlines())}
    parts = [fields.get("Model name", platform.machine())]
    parts += [f"{name} {fields[name]}" for name in ("CPU family", "Model", "L3 cache") if name in fields]
    return ", ".join(parts)


def _others() -> dict[str, str]:
    found = {}
    for package in ("torch_optimizer", "pytorch_optimizer", "timm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
