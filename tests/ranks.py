"""Real ranks for tests: gloo processes, kept warm between calls because importing torch takes seconds."""

import multiprocessing
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

Result = TypeVar("Result")
_SPAWN = multiprocessing.get_context("spawn")


class RankError(AssertionError):
    """A rank raised, died or did not answer; the message carries its traceback."""


class _Job(NamedTuple):
    store: Path
    rank: int
    world_size: int
    timeout: timedelta
    function: Callable[..., object]
    args: tuple[object, ...]


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection


_workers: list[_Worker] = []  # rank r of every call runs on the r-th


def run_on_ranks(
    world_size: int, function: Callable[..., Result], *args: object, timeout: timedelta = timedelta(seconds=120)
) -> list[Result]:
    """Call `function(*args)` on every rank of a fresh gloo group and return what each rank returned, in rank order.

    `function` must stand at the top level of an importable module; arguments and results travel by pickle, so return
    plain tensors (`full_tensor()`) rather than DTensors. Inside, `torch.distributed.get_rank()` says who is asking.

    Raises:
        RankError: with the traceback of the rank that failed first. The processes are then ended and started anew by
            the next call, so one failure does not spoil another test.
    """
    while len(_workers) < world_size:
        _workers.append(_start())
    workers = _workers[:world_size]
    try:
        with tempfile.TemporaryDirectory() as folder:
            for rank, worker in enumerate(workers):
                job = _Job(Path(folder) / "store", rank, world_size, timeout, function, args)
                worker.connection.send_bytes(pickle.dumps(job))
            return _collect(workers, timeout)
    except BaseException:
        stop_ranks()
        raise


def stop_ranks() -> None:
    """End every process that this module started."""
    while _workers:
        worker = _workers.pop()
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _start() -> _Worker:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(theirs,), daemon=True)  # a daemon ends with pytest
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _collect(workers: list[_Worker], timeout: timedelta) -> list[Any]:
    results: dict[int, Any] = {}
    waiting = {worker.connection: rank for rank, worker in enumerate(workers)}
    deadline = time.monotonic() + timeout.total_seconds()
    while waiting:
        ready = [each for each in wait(list(waiting), max(0.0, deadline - time.monotonic())) if each in waiting]
        if not ready:
            raise RankError(f"ranks {sorted(waiting.values())} did not answer within {timeout}: a collective may hang")
        for connection in ready:
            rank = waiting.pop(connection)
            results[rank] = _receive(rank, connection)
    return [results[rank] for rank in range(len(workers))]


def _receive(rank: int, connection: Connection) -> Any:
    try:
        error, result = pickle.loads(connection.recv_bytes())  # noqa: S301 - from our own child
    except EOFError:
        raise RankError(f"the process of rank {rank} ended without an answer") from None
    if error:
        raise RankError(f"rank {rank} raised\n{error}")
    return result


def _serve(connection: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            job = connection.recv_bytes()
        except EOFError:  # the test session is over
            return
        try:
            result = _run(pickle.loads(job))  # noqa: S301 - from our own parent
        except Exception:  # noqa: BLE001 - whatever the test's function raised goes to the caller
            # Told before the group is left: its neighbours fail too, and the first to tell should be the cause.
            connection.send_bytes(pickle.dumps((traceback.format_exc(), None)))
            return
        dist.destroy_process_group()
        connection.send_bytes(pickle.dumps((None, result)))


def _run(job: _Job) -> object:
    dist.init_process_group("gloo", f"file://{job.store}", job.timeout, job.world_size, job.rank)
    dist.barrier()  # A rank that ends at once would else close its connections while others still connect to it.
    return job.function(*job.args)
