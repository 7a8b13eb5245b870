"""Steps on shards: several gloo processes, the slowest of which is what a step takes."""

import multiprocessing
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.multiprocessing.spawn import start_processes

from benchmarks.bert import count, make_parameters
from benchmarks.contenders import BASELINE, CONTENDERS
from benchmarks.counting import moved_bytes, state_bytes
from benchmarks.results import Result, Setting, result
from benchmarks.timing import Step, copy_step, in_turns

TIMEOUT = timedelta(minutes=10)


class _Measured(NamedTuple):
    """Seconds of each turn, those of the slowest rank."""

    copy: list[float]  # on every rank at once
    baseline: list[float]  # the baseline on shards
    contender: list[float]  # the contender on shards
    whole: list[float]  # the contender on one rank with as many threads, while the others wait
    moved_bytes: float  # on one rank, for each parameter
    state_bytes: int  # of all ranks
    collectives: int


def measure_sharded(setting: Setting, name: str) -> Result:
    """Return what a contender takes on shards, beside the baseline and beside itself on one rank, in turns."""
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (setting, name, Path(folder) / "store", queue)
        start_processes(_rank, arguments, setting.ranks, start_method="spawn")  # type: ignore[no-untyped-call]
        measured = _Measured(*queue.get())
    return result(
        setting,
        name,
        measured.contender,
        measured.baseline,
        measured.copy,
        measured.moved_bytes,
        measured.state_bytes / count(setting.model),
        whole=measured.whole,
        collectives=measured.collectives,
    )


def _rank(
    rank: int, setting: Setting, name: str, store: Path, queue: "multiprocessing.SimpleQueue[tuple[object, ...]]"
) -> None:
    torch.set_num_threads(setting.threads)
    dist.init_process_group("gloo", f"file://{store}", TIMEOUT, setting.ranks, rank)
    mesh = init_device_mesh("cpu", (setting.ranks,))
    own = [CONTENDERS[each].make(make_parameters(setting.model, mesh=mesh)) for each in dict.fromkeys((BASELINE, name))]
    whole = CONTENDERS[name].make(make_parameters(setting.model)).step if rank == 0 else _wait
    steps: list[Step] = [copy_step(), *(optimizer.step for optimizer in own), whole]
    seconds = torch.tensor(in_turns(steps, setting.turns, before=dist.barrier))
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    from torch.distributed.tensor.debug import CommDebugMode  # its package needs NumPy

    with CommDebugMode() as counted:  # type: ignore[no-untyped-call]
        own[-1].step()
    if rank == 0:
        copy, baseline, *_ = taken = seconds.tolist()
        moved = CONTENDERS[name].moved_bytes or moved_bytes(whole) / count(setting.model)
        queue.put((copy, baseline, *taken[-2:], moved, state_bytes(own[-1]), counted.get_total_counts()))
    dist.destroy_process_group()


def _wait() -> None:
    """Do nothing while rank 0 takes a step alone; the barrier that follows waits for it."""
