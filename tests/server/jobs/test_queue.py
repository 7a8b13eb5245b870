from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.jobs.job import Job
from server.jobs.queue import Action, Decision, Facts, decide
from server.jobs.resources import Resources, Run
from server.jobs.status import JobStatus
from tests.serving import TINY
from workers.contract.documents import parse_spec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DUAL = Resources(cpus=2)


def _job(name: str, state: JobStatus = JobStatus.QUEUED, workers: Any = 1, **parallel: Any) -> Job:
    spec = parse_spec(TINY | {"parallel": {"workers": workers, **parallel}})
    return Job(id=name, name=name, total_steps=20, created_at=NOW, status=state, attempt=1, spec=spec)


def _decide(*jobs: Job, runs: Mapping[str, Run] | None = None, total: Resources = DUAL) -> list[Decision]:
    return decide(Facts(jobs, runs or {}, total, NOW))


def _admitted(decisions: list[Decision]) -> list[tuple[str, int]]:
    return [(each.job.id, each.world_size) for each in decisions if each.action is Action.ADMIT]


@pytest.mark.parametrize(
    ("state", "run", "action"),
    [
        (JobStatus.STARTING, Run.UNKNOWN, Action.SUBMIT),
        (JobStatus.STARTING, Run.PENDING, None),
        (JobStatus.STARTING, Run.RUNNING, None),
        (JobStatus.STARTING, Run.ENDED, Action.SETTLE),
        (JobStatus.RUNNING, Run.UNKNOWN, Action.RESTART),
        (JobStatus.RUNNING, Run.PENDING, None),
        (JobStatus.RUNNING, Run.RUNNING, None),
        (JobStatus.RUNNING, Run.ENDED, Action.SETTLE),
        (JobStatus.PAUSING, Run.UNKNOWN, Action.RESTART),
        (JobStatus.PAUSING, Run.RUNNING, None),
        (JobStatus.PAUSING, Run.ENDED, Action.SETTLE),
        (JobStatus.STOPPING, Run.UNKNOWN, Action.SETTLE),
        (JobStatus.STOPPING, Run.RUNNING, None),
        (JobStatus.STOPPING, Run.ENDED, Action.SETTLE),
    ],
)
def test_every_state_meets_what_the_cluster_says_with_one_decision(
    state: JobStatus, run: Run, action: Action | None
) -> None:
    decisions = _decide(_job("a", state), runs={"a": run})
    assert [each.action for each in decisions] == ([] if action is None else [action])


def test_a_lost_run_starts_again_at_the_size_that_the_cluster_now_has_room_for() -> None:
    lost = replace(_job("a", JobStatus.RUNNING, workers={"min": 1, "max": 2}), world_size=2)
    for cpus, size in ((1, 1), (2, 2), (0, 2)):  # a cluster without room may get some: Ray waits for it
        (decision,) = _decide(lost, runs={"a": Run.UNKNOWN}, total=Resources(cpus=cpus))
        assert (decision.action, decision.world_size) == (Action.RESTART, size)


def test_lost_runs_start_again_beside_each_other() -> None:
    lost = [replace(_job(name, JobStatus.RUNNING, workers={"min": 1, "max": 2}), world_size=1) for name in "ab"]
    decisions = _decide(*lost, runs={"a": Run.UNKNOWN, "b": Run.UNKNOWN})
    assert [(each.action, each.world_size) for each in decisions] == [(Action.RESTART, 1)] * 2


def test_a_run_is_killed_only_when_its_time_to_stop_is_over() -> None:
    stopping = _job("a", JobStatus.RUNNING).cancel(NOW)
    assert _decide(stopping, runs={"a": Run.RUNNING}) == []
    late = replace(stopping, stop_deadline=NOW - timedelta(seconds=1))
    assert [each.action for each in _decide(late, runs={"a": Run.RUNNING})] == [Action.KILL]


def test_a_paused_job_is_left_alone() -> None:
    assert _decide(_job("a", JobStatus.PAUSED)) == []


def test_jobs_are_admitted_in_order_while_they_fit() -> None:
    assert _admitted(_decide(_job("a"), _job("b"), _job("c"))) == [("a", 1), ("b", 1)]


def test_a_job_that_must_wait_holds_back_those_behind_it() -> None:
    running = replace(_job("r", JobStatus.RUNNING), world_size=1)
    assert _decide(running, _job("wide", workers=2), _job("narrow"), runs={"r": Run.RUNNING}) == []


def test_a_job_gets_as_many_workers_as_the_cluster_has_and_the_batch_divides_into() -> None:
    elastic = _job("a", workers={"min": 1, "max": 8})
    assert _admitted(_decide(elastic)) == [("a", 2)]
    assert _admitted(_decide(elastic, total=Resources(cpus=3))) == [("a", 2)]  # a batch of 8 does not divide by 3 * 4
    assert _admitted(_decide(elastic, total=Resources(cpus=1))) == [("a", 1)]


def test_processors_of_running_jobs_are_not_given_twice() -> None:
    running = replace(_job("r", JobStatus.RUNNING, workers={"min": 1, "max": 2}), world_size=1)
    assert _admitted(_decide(running, _job("a"), runs={"r": Run.RUNNING})) == [("a", 1)]
    wide = replace(running, world_size=2)
    assert _decide(wide, _job("a"), runs={"r": Run.RUNNING}) == []


def test_a_job_that_can_never_fit_is_refused_with_both_numbers_and_holds_nobody_back() -> None:
    decisions = _decide(_job("a", workers=1, gpus_per_worker=1), _job("b", cpus_per_worker=8), _job("c"))
    assert [(each.job.id, each.action) for each in decisions] == [
        ("a", Action.REFUSE),
        ("b", Action.REFUSE),
        ("c", Action.ADMIT),
    ]
    assert "1 worker would need 1 CPU and 1 GPU, and the whole cluster has 2 CPUs" in decisions[0].reason
    assert "parallel.cpus_per_worker" in decisions[1].reason
