from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from server.jobs.admission import starts_in_s, turns
from server.jobs.job import Job
from server.jobs.order import Rules
from server.jobs.resources import Node
from server.jobs.status import JobStatus
from tests.serving import TINY
from workers.contract.documents import parse_spec
from workers.planning.size import Resources

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EIGHT = [Node(Resources(cpus=8))]


def _job(name: str, cpus: int, owner: str = "ann", **fields: Any) -> Job:
    spec = parse_spec(TINY | {"parallel": {"workers": 1, "cpus_per_worker": cpus}})
    return Job(id=name, name=name, total_steps=20, created_at=NOW, owner=owner, spec=spec, **fields)


def _running(name: str, cpus: int, minutes: int = 0, **fields: Any) -> Job:
    began: dict[str, Any] = {
        "status": JobStatus.RUNNING,
        "attempt": 1,
        "world_size": 1,
        "attempt_at": NOW + timedelta(minutes=minutes),
    }
    return _job(name, cpus, **began | fields)


def _told(
    line: Sequence[Job],
    active: Sequence[Job] = (),
    nodes: Sequence[Node] = EIGHT,
    rules: Rules = Rules(),  # noqa: B008 -- frozen
) -> dict[str, int | str]:
    return {turn.job.id: turn.workers or turn.refusal or turn.reason for turn in turns(line, active, nodes, rules)}


def test_a_job_behind_one_that_waits_starts_on_what_that_one_will_not_need() -> None:
    told = _told([_job("wide", 6), _job("narrow", 2)], [_running("r", 4)])
    assert told == {"wide": "it needs 1 worker of 6 CPUs, and the cluster has 4 CPUs free", "narrow": 1}


def test_a_job_behind_one_that_waits_does_not_start_on_what_that_one_will_need() -> None:
    told = _told([_job("wide", 6), _job("narrow", 3), _job("huge", 8)], [_running("r", 4)])
    assert (
        told["narrow"] == "1 worker of 3 CPUs would fit, but what is free is kept for job wide, which stands before it"
    )
    assert told["huge"] == "it needs 1 worker of 8 CPUs, and the cluster has 4 CPUs free"


def test_jobs_that_need_the_same_wait_for_the_same_until_another_one_starts() -> None:
    told = _told([_job("wide", 6), _job("b", 3), _job("c", 3), _job("d", 2), _job("e", 3)], [_running("r", 4)])
    assert told["b"] == told["c"]
    assert "is kept for job wide" in str(told["c"])
    assert (told["d"], told["e"]) == (1, "it needs 1 worker of 3 CPUs, and the cluster has 2 CPUs free")


def test_jobs_that_overtook_do_not_let_others_overtake_so_that_the_first_one_waits_longer() -> None:
    overtook = _running("early", 2, minutes=5)
    told = _told([_job("wide", 6), _job("late", 2)], [overtook, _running("r", 4, minutes=0)])
    assert "is kept for job wide" in str(told["late"])


def test_a_job_that_only_needs_cpus_starts_beside_one_that_waits_for_gpus() -> None:
    nodes = [Node(Resources(8, 1))]
    needs_gpu = parse_spec(TINY | {"parallel": {"workers": 1, "cpus_per_worker": 2, "gpus_per_worker": 1}})
    busy = replace(_running("r", 1), spec=needs_gpu)
    assert _told([replace(_job("first", 1), spec=needs_gpu), _job("cpu", 6)], [busy], nodes)["cpu"] == 1
    assert _told([replace(_job("first", 1), spec=needs_gpu), _job("cpu", 7)], [busy], nodes)["cpu"] != 1


def test_behind_a_job_that_waits_for_one_that_starts_now_nobody_overtakes() -> None:
    told = _told([_job("a", 5), _job("b", 6), _job("c", 1)])
    assert (told["a"], "is kept for job b" in str(told["c"])) == (1, True)


def test_an_owner_has_no_more_jobs_on_the_cluster_than_the_limit_and_others_go_on() -> None:
    rules = Rules(jobs_per_owner=2)
    told = _told([_job("a", 1), _job("b", 1), _job("c", 1, owner="bob")], [_running("r", 1)], rules=rules)
    assert told == {
        "a": 1,
        "b": "ann has 2 jobs on the cluster, as many as one owner may have at a time",
        "c": 1,
    }


def test_a_job_that_can_never_fit_is_refused_unless_it_has_trained_already() -> None:
    told = _told([_job("new", 9), _job("old", 9, attempt=1), _job("c", 1)])
    assert "9 CPUs, and the whole cluster has 8 CPUs" in str(told["new"])
    assert str(told["old"]).startswith("it waits for more nodes: 1 worker would need 9 CPUs")
    assert told["c"] == 1


def test_when_a_job_may_start_follows_from_when_the_running_ones_end() -> None:
    active = [_running("long", 4, seconds_left=600.0), _running("short", 4, seconds_left=60.0)]
    line = [_job("a", 4), _job("b", 4), _job("c", 1)]
    assert starts_in_s(line, active, EIGHT) == {"a": 60.0, "b": 600.0}, "nobody knows how long a and b will take"
    assert starts_in_s([_job("a", 4)], [_running("r", 8)], EIGHT) == {}, "nor how long one takes without a pace"
    assert starts_in_s([_job("a", 4)], [], EIGHT) == {"a": 0.0}
