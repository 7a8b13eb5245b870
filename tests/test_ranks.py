import pytest
import torch
import torch.distributed as dist

from tests.ranks import RankError, run_on_ranks


def add_ranks() -> float:
    total = torch.tensor(float(dist.get_rank()))
    dist.all_reduce(total)
    return total.item()


def fail_on_rank_one(value: int) -> None:
    if dist.get_rank() == 1:
        raise ValueError(f"no {value}")
    dist.barrier()


def test_ranks_really_talk_and_come_in_any_number() -> None:
    assert run_on_ranks(2, add_ranks) == [1.0, 1.0]
    assert run_on_ranks(3, add_ranks) == [3.0, 3.0, 3.0]
    assert run_on_ranks(1, add_ranks) == [0.0]


def test_a_failing_rank_brings_its_traceback_and_spoils_nothing() -> None:
    with pytest.raises(RankError, match=r"rank 1 raised(.|\n)*ValueError: no 7"):
        run_on_ranks(2, fail_on_rank_one, 7)
    assert run_on_ranks(2, add_ranks) == [1.0, 1.0]
