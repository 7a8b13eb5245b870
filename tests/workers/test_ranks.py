import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.ranks import run_on_ranks
from workers import ranks


def what_ranks_tell() -> tuple[object, ...]:
    rank = ranks.rank()
    done: list[int] = []

    def work() -> str:
        done.append(rank)
        return f"from rank {rank}"

    return (
        ranks.gather(rank * 10),
        ranks.gather_errors("ill" if rank == 1 else None),
        ranks.as_rank_0_says(rank + 7),
        [ranks.any_of(rank == number, torch.device("cpu")) for number in (0, 1, 2)],
        ranks.as_rank_0_does(work),
        done,
    )


def test_every_rank_hears_the_same_and_rank_0_alone_does_the_work() -> None:
    first, second = run_on_ranks(2, what_ranks_tell)
    assert first[:5] == second[:5] == ([0, 10], ["ill"], 7, [True, True, False], "from rank 0")
    assert (first[5], second[5]) == ([0], [])


def fail_on_rank_0() -> str:
    def work() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        ranks.as_rank_0_does(work)
    dist.barrier()
    return str(caught.value)


def test_where_rank_0_fails_all_ranks_raise_its_error_and_none_waits() -> None:
    first, second = run_on_ranks(2, fail_on_rank_0)
    assert first == second == "[Errno 28] No space left on device"


def come_late(folder: Path) -> list[list[int]]:
    """Let rank 1 come when rank 0 has waited longer than a collective would."""
    told: list[list[int]] = []
    dist.distributed_c10d._set_pg_timeout(timedelta(milliseconds=500))

    def on_wait(missing: list[int]) -> None:
        told.append(missing)
        (folder / "waits").touch()

    while ranks.rank() == 1 and not (folder / "waits").exists():
        time.sleep(0.01)
    for _ in range(2):  # a second turn has nothing of the first one
        ranks.wait_for_all("text", timedelta(minutes=1), on_wait)
    return told


def test_ranks_wait_for_the_last_one_longer_than_a_collective_does_and_know_who_it_is(tmp_path: Path) -> None:
    waited, _ = run_on_ranks(2, come_late, tmp_path)
    assert waited[0] == [1]


def never_come() -> str:
    if ranks.rank() == 1:
        return ""
    with pytest.raises(ranks.LateError) as caught:
        ranks.wait_for_all("preparation of the text", timedelta(0), lambda _: None)
    return str(caught.value)


def test_a_rank_that_does_not_come_in_time_is_named() -> None:
    assert (
        "preparation of the text: nothing was heard of the ranks [1] within 0:00:00" in run_on_ranks(2, never_come)[0]
    )
