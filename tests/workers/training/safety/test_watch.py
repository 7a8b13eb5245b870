"""Ranks that hang, as processes of their own: the watch ends them."""

import multiprocessing
import os
import signal
import time
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from tests.ranks import run_on_ranks
from workers.training.safety.watch import HUNG, Watch

LIMIT = timedelta(seconds=6)
_SPAWN = multiprocessing.get_context("spawn")


def rank_of_two(rank: int, port: int, said: Path, ready: Connection, stuck: bool) -> None:
    """Take steps for ever, after something that takes longer than the limit. Rank 1 gets `stuck` in its 20th step."""
    os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY), 2)
    store = TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    with Watch(LIMIT, partial(alert, said) if rank == 0 else None) as watch:
        if rank == 0:
            time.sleep(1.5 * LIMIT.total_seconds())  # an evaluation, for which rank 1 waits in a collective
        for step in range(100_000):
            if stuck and rank == 1 and step == 20:
                time.sleep(1000)
            dist.all_reduce(torch.ones(3))
            time.sleep(0.01)
            watch.step_taken(goes_on=True)
            if step == 10:
                ready.send(None)


def alert(said: Path, detail: str) -> None:
    said.with_suffix(".alert").write_text(detail)


class Pair:
    """Two ranks, of which the test holds the store, as torchrun does."""

    def __init__(self, folder: Path, *, stuck: bool = False) -> None:
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.said = [folder / f"rank-{rank}" for rank in range(2)]
        ours, theirs = zip(*(_SPAWN.Pipe() for _ in range(2)), strict=True)
        self.processes: list[BaseProcess] = [
            _SPAWN.Process(target=rank_of_two, args=(rank, self.store.port, self.said[rank], theirs[rank], stuck))
            for rank in range(2)
        ]
        for process in self.processes:
            process.start()
        for connection in theirs:
            connection.close()
        for connection in ours:
            connection.recv()  # EOFError where the process has ended

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_rank_is_named_and_the_other_one_ends_but_not_while_it_evaluates(
    stopped: int, tmp_path: Path
) -> None:
    pair = Pair(tmp_path)
    try:
        os.kill(pair.processes[stopped].pid or 0, signal.SIGSTOP)
        other = pair.processes[1 - stopped]
        other.join(60)
        assert other.exitcode == HUNG
        said = pair.said[1 - stopped].read_text()
        assert f"rank {1 - stopped}: no sign of life of rank {stopped} on " in said
        assert "in all_reduce" in said
        assert pair.processes[stopped].exitcode is None
    finally:
        pair.kill()
    if stopped == 1:
        assert pair.said[0].with_suffix(".alert").read_text() in said


def test_a_rank_that_is_stuck_in_its_own_work_ends_all_which_say_where_they_are(tmp_path: Path) -> None:
    pair = Pair(tmp_path, stuck=True)
    try:
        for process in pair.processes:
            process.join(60)
            assert process.exitcode == HUNG
        waiting, culprit = (said.read_text() for said in pair.said)
        assert "no step came to its end" in waiting
        assert "in all_reduce" in waiting
        assert "in rank_of_two" in culprit
        assert "in all_reduce" not in culprit
    finally:
        pair.kill()


def leave_early() -> bool:
    limit = timedelta(seconds=1)
    with Watch(limit):
        if dist.get_rank() == 0:
            time.sleep(3 * limit.total_seconds())  # rank 1 has left, and is silent from then on
    return True


def test_a_rank_that_has_left_is_not_missed() -> None:
    assert run_on_ranks(2, leave_early) == [True, True]
