from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError
from workers.contract.spec.job import JobSpec
from workers.planning.size import Resources, check_size, shortage, size_that_fits


def _spec(batch: int = 24, **parallel: Any) -> JobSpec:
    phase = {"seq_len": 64, "global_batch_size": batch, "micro_batch_size": 2, "steps": 3, "lr": 1e-3}
    document = {"name": "tiny", "data": {"corpus": ["builtin:austen"]}, "phases": [phase], "parallel": parallel}
    return parse_spec(document)


def _one_node(cpus: float) -> list[Resources]:
    return [Resources(cpus)]


def _can_be_placed(workers: int, worker: Resources, free: Sequence[Resources]) -> bool:
    """Try every node for every worker."""
    if workers == 0:
        return True
    return any(
        worker.cpus <= room.cpus
        and worker.gpus <= room.gpus
        and _can_be_placed(workers - 1, worker, [*free[:here], room - worker, *free[here + 1 :]])
        for here, room in enumerate(free)
    )


def test_a_job_runs_on_the_most_workers_that_divide_its_batch_and_fit() -> None:
    spec = _spec(workers={"min": 1, "max": 12})
    sizes = [size_that_fits(spec, _one_node(cpus)) for cpus in (1, 2, 3, 4, 5, 6, 11, 12, 99)]
    assert sizes == [1, 2, 3, 4, 4, 6, 6, 12, 12]


def test_what_is_left_on_two_nodes_is_no_room_for_a_worker() -> None:
    spec = _spec(workers={"min": 1, "max": 2}, cpus_per_worker=3)
    assert size_that_fits(spec, [Resources(4), Resources(2)]) == 1
    assert size_that_fits(spec, [Resources(4), Resources(3)]) == 2
    assert size_that_fits(spec, [Resources(2), Resources(2)]) is None
    assert size_that_fits(spec, []) is None
    with_cards = _spec(workers={"min": 1, "max": 4}, gpus_per_worker=1)
    assert size_that_fits(with_cards, [Resources(64), Resources(1, 8), Resources(8, 2)]) == 3


_NODES = st.lists(st.builds(Resources, st.integers(0, 7), st.integers(0, 3)), max_size=4)


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 2), _NODES)
def test_a_size_fits_where_trying_all_ways_to_place_its_workers_finds_one(
    most: int, cpus: int, gpus: int, nodes: list[Resources]
) -> None:
    spec = _spec(48, workers={"min": 1, "max": most}, cpus_per_worker=cpus, gpus_per_worker=gpus)
    sizes = [n for n in range(1, most + 1) if 24 % n == 0 and _can_be_placed(n, Resources(cpus, gpus), nodes)]
    assert size_that_fits(spec, nodes) == (sizes[-1] if sizes else None)
    assert (shortage(spec, nodes) is None) is bool(sizes)


def test_what_can_never_fit_is_told_with_both_numbers_and_a_remedy() -> None:
    problem = shortage(_spec(200, workers=100), _one_node(2))
    assert problem is not None
    assert (problem.field, problem.value) == ("parallel.workers", "100")
    assert problem.problem == "100 workers would need 100 CPUs, and the whole cluster has 2 CPUs"
    assert "parallel.cpus_per_worker" in problem.remedy


def test_a_job_that_only_the_sum_of_all_nodes_would_hold_is_told_of_the_largest_one() -> None:
    problem = shortage(_spec(workers=2, cpus_per_worker=3), [Resources(4), Resources(2)])
    assert problem is not None
    assert problem.problem == (
        "2 workers of 3 CPUs each would not fit: there is room for 1. A worker runs on a single node, and the "
        "cluster's 6 CPUs are spread over 2 nodes, the largest of which has 4 CPUs"
    )


def test_a_cluster_without_gpus_never_fits_a_job_that_needs_one() -> None:
    problem = shortage(_spec(workers=1, gpus_per_worker=1), _one_node(64))
    assert problem is not None
    assert problem.problem == "1 worker would need 1 CPU and 1 GPU, and the whole cluster has 64 CPUs"


def test_a_number_of_workers_that_the_job_does_not_allow_is_refused_with_those_that_it_does() -> None:
    spec = _spec(workers={"min": 2, "max": 4})
    check_size(spec, 3)
    with pytest.raises(SpecError, match=r"this job cannot run on 5 workers.*start 2 or 3 or 4,"):
        check_size(spec, 5)
    with pytest.raises(SpecError, match="cannot run on 1 worker\\."):
        check_size(spec, 1)


def test_resources_are_added_subtracted_and_multiplied_by_kind() -> None:
    worker = Resources(cpus=2, gpus=1)
    assert worker * 3 == worker + worker + worker == Resources(6, 3)
    assert worker * 3 - worker == worker * 2


def test_resources_hold_as_many_workers_as_each_kind_allows() -> None:
    assert Resources(7.5, 2).hold(Resources(2, 1)) == 2
    assert Resources(7.5, 2).hold(Resources(2)) == 3
    assert Resources(-1, 2).hold(Resources(2, 1)) == 0


def test_resources_are_written_in_words() -> None:
    assert [str(each) for each in (Resources(1), Resources(2.5), Resources(4, 1))] == [
        "1 CPU",
        "2.5 CPUs",
        "4 CPUs and 1 GPU",
    ]
