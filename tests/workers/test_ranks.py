import pytest
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
        ranks.as_rank_0_does(work),
        done,
    )


def test_every_rank_hears_the_same_and_rank_0_alone_does_the_work() -> None:
    first, second = run_on_ranks(2, what_ranks_tell)
    assert first[:4] == second[:4] == ([0, 10], ["ill"], 7, "from rank 0")
    assert (first[4], second[4]) == ([0], [])


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
