from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.jobs.job import Job
from server.jobs.queue import Action, Decision, Facts, decide
from server.jobs.resources import Node, Run, Submission
from server.jobs.status import JobStatus
from server.jobs.verbs import cancel
from tests.serving import TINY
from workers.contract.documents import parse_spec
from workers.planning.size import Resources

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DUAL = [Node(Resources(cpus=2))]


def _job(name: str, state: JobStatus = JobStatus.QUEUED, workers: Any = 1, **parallel: Any) -> Job:
    spec = parse_spec(TINY | {"parallel": {"workers": workers, **parallel}})
    attempt = 0 if state is JobStatus.QUEUED else 1
    return Job(id=name, name=name, total_steps=20, created_at=NOW, status=state, attempt=attempt, spec=spec)


def _decide(
    *jobs: Job,
    runs: Mapping[str, Run] | None = None,
    nodes: Sequence[Node] = DUAL,
    waited: Mapping[str, timedelta] | None = None,
) -> list[Decision]:
    known = {name: Submission(run, end="it ended." if run is Run.ENDED else "") for name, run in (runs or {}).items()}
    return decide(Facts(jobs, known, nodes, NOW, waited or {}))


def _admitted(decisions: list[Decision]) -> list[tuple[str, int]]:
    return [(each.job.id, each.world_size) for each in decisions if each.action is Action.ADMIT]


@pytest.mark.parametrize(
    ("state", "run", "action"),
    [
        (JobStatus.STARTING, Run.UNKNOWN, Action.SUBMIT),
        (JobStatus.STARTING, Run.PENDING, None),
        (JobStatus.STARTING, Run.RUNNING, None),
        (JobStatus.STARTING, Run.ENDED, Action.SETTLE),
        (JobStatus.RUNNING, Run.UNKNOWN, Action.SETTLE),
        (JobStatus.RUNNING, Run.PENDING, None),
        (JobStatus.RUNNING, Run.RUNNING, None),
        (JobStatus.RUNNING, Run.ENDED, Action.SETTLE),
        (JobStatus.PAUSING, Run.UNKNOWN, Action.SETTLE),
        (JobStatus.PAUSING, Run.RUNNING, None),
        (JobStatus.PAUSING, Run.ENDED, Action.SETTLE),
        (JobStatus.STOPPING, Run.UNKNOWN, Action.SETTLE),
        (JobStatus.STOPPING, Run.RUNNING, None),
        (JobStatus.STOPPING, Run.ENDED, Action.SETTLE),
        *((state, Run.UNCLEAR, None) for state in JobStatus if state.is_active),
    ],
)
def test_every_state_meets_what_the_cluster_says_with_one_decision(
    state: JobStatus, run: Run, action: Action | None
) -> None:
    decisions = _decide(_job("a", state), runs={"a": run})
    assert [each.action for each in decisions] == ([] if action is None else [action])


@pytest.mark.parametrize(
    ("session", "action"), [("this", Action.SUBMIT), (None, Action.SUBMIT), ("another", Action.SETTLE)]
)
def test_an_attempt_that_another_cluster_may_have_started_is_not_started_again_under_its_number(
    session: str | None, action: Action
) -> None:
    job = replace(_job("a", JobStatus.STARTING), session=session)
    decisions = decide(Facts([job], {"a": Submission(Run.UNKNOWN)}, DUAL, NOW, session="this"))
    assert [each.action for each in decisions] == [action]


def test_a_job_whose_attempt_was_lost_starts_again_at_the_size_that_the_cluster_now_has_room_for() -> None:
    lost = replace(_job("a", JobStatus.RUNNING, workers={"min": 1, "max": 2}), world_size=2).settle(NOW, "lost")
    assert [_admitted(_decide(lost, nodes=[Node(Resources(cpus=cpus))])) for cpus in (1, 2)] == [[("a", 1)], [("a", 2)]]
    beside = replace(_job("b", JobStatus.RUNNING), world_size=1)
    assert _admitted(_decide(beside, lost, runs={"b": Run.RUNNING})) == [("a", 1)]


def test_a_job_that_has_trained_waits_for_a_new_node_and_holds_nobody_back() -> None:
    lost = replace(_job("a", JobStatus.RUNNING, workers=2), world_size=2).settle(NOW, "lost")
    decisions = _decide(lost, _job("b"), nodes=[Node(Resources(cpus=1))])
    assert [(each.job.id, each.action) for each in decisions] == [("b", Action.ADMIT)]


def test_a_run_is_killed_only_when_its_time_to_stop_is_over_whatever_the_time_of_day() -> None:
    stopping = cancel(replace(_job("a", JobStatus.RUNNING), attempt_at=NOW), NOW - timedelta(days=1))
    assert _killed(stopping, stopping.grace - timedelta(seconds=1)) is False
    assert _killed(stopping, stopping.grace) is True
    ahead = replace(stopping, stop_deadline=NOW + timedelta(days=1))
    assert _killed(ahead, ahead.grace) is True


def test_a_run_that_is_still_there_long_after_it_said_that_its_attempt_ends_is_killed() -> None:
    ending = replace(_job("a", JobStatus.RUNNING), interruption="worker 1 died")
    assert _killed(ending, ending.grace) is True
    assert _killed(ending, timedelta()) is False


def test_a_run_that_has_only_been_asked_to_end_is_not_killed() -> None:
    assert _decide(cancel(replace(_job("a", JobStatus.RUNNING), attempt_at=NOW), NOW), runs={"a": Run.RUNNING}) == []


def _killed(job: Job, waited: timedelta) -> bool:
    decisions = _decide(job, runs={job.id: Run.RUNNING}, waited={job.submission_id: waited})
    return [each.action for each in decisions] == [Action.KILL]


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
    assert _admitted(_decide(elastic, nodes=[Node(Resources(cpus=3))])) == [
        ("a", 2)
    ]  # a batch of 8 does not divide by 3 * 4
    assert _admitted(_decide(elastic, nodes=[Node(Resources(cpus=1))])) == [("a", 1)]
    running = replace(_job("r", JobStatus.RUNNING), world_size=1)
    assert _admitted(_decide(running, elastic, runs={"r": Run.RUNNING})) == [("a", 1)]  # it need not wait for the rest


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


def _growing(name: str, **parallel: Any) -> Job:
    job = _job(name, JobStatus.RUNNING, workers={"min": 1, "max": 2}, **parallel)
    running = replace(job, world_size=1, seconds_left=36e3)
    return replace(running, attempt_at=NOW - timedelta(hours=1))


def test_where_processors_are_free_one_job_at_a_time_makes_way_for_an_attempt_on_more() -> None:
    runs = {"a": Run.RUNNING, "b": Run.RUNNING}
    both = [_growing("a"), _growing("b")]
    (decision,) = _decide(*both, runs=runs, nodes=[Node(Resources(cpus=4))])
    assert (decision.job.id, decision.action, decision.world_size) == ("a", Action.GROW, 2)
    asked = both[0].make_way()
    assert _decide(asked, both[1], runs=runs, nodes=[Node(Resources(cpus=4))]) == []
    assert _decide(*both, runs=runs) == []  # all processors are taken


def test_free_processors_are_for_jobs_that_wait_before_any_job_grows() -> None:
    decisions = _decide(_growing("a"), _job("b"), runs={"a": Run.RUNNING})
    assert [(each.job.id, each.action) for each in decisions] == [("b", Action.ADMIT)]


def test_an_attempt_that_made_way_is_followed_by_one_on_more_workers() -> None:
    gone = _growing("a").make_way().settle(NOW, "unheard")
    assert _admitted(_decide(gone)) == [("a", 2)]


def test_a_job_does_not_grow_into_what_is_left_on_nodes_that_are_each_too_small() -> None:
    wide = _growing("a", cpus_per_worker=3)
    mine = {"a-a1": Resources(3)}
    runs = {"a": Run.RUNNING}
    assert _decide(wide, runs=runs, nodes=[Node(Resources(4), mine), Node(Resources(2))]) == []
    (decision,) = _decide(wide, runs=runs, nodes=[Node(Resources(4), mine), Node(Resources(3))])
    assert (decision.action, decision.world_size) == (Action.GROW, 2)


def test_what_others_hold_of_a_node_is_no_room() -> None:
    others = [Node(Resources(2), {"": Resources(1)}), Node(Resources(2), {"": Resources(2)})]
    elastic = _job("a", workers={"min": 1, "max": 4})
    assert _admitted(_decide(elastic, nodes=others)) == [("a", 1)]
    assert _decide(_growing("b"), runs={"b": Run.RUNNING}, nodes=others) == []


def test_an_attempt_that_the_cluster_has_placed_is_counted_where_it_is_and_one_that_it_has_not_somewhere() -> None:
    wide = replace(_job("r", JobStatus.RUNNING, cpus_per_worker=2), world_size=1)
    narrow = _job("a", cpus_per_worker=3)
    nodes = [Node(Resources(3)), Node(Resources(3))]
    runs = {"r": Run.RUNNING}
    assert _admitted(_decide(wide, narrow, runs=runs, nodes=nodes)) == [("a", 1)]
    placed = [nodes[0], Node(Resources(3), {"r-a1": Resources(2)})]
    assert _admitted(_decide(wide, narrow, runs=runs, nodes=placed)) == [("a", 1)]
    both = replace(wide, world_size=2)
    assert _decide(both, narrow, runs=runs, nodes=placed) == []  # its second worker comes to the node that is free
