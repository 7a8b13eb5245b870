from dataclasses import replace
from datetime import UTC, datetime

from server.jobs.job import Job
from server.jobs.resources import Node
from server.jobs.room import both, less, room
from server.jobs.status import JobStatus
from tests.serving import TINY
from workers.contract.documents import parse_spec
from workers.planning.size import Resources

SPEC = parse_spec(TINY | {"parallel": {"workers": 2}})
JOB = Job(
    id="a",
    name="a",
    total_steps=20,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    status=JobStatus.RUNNING,
    attempt=1,
    world_size=2,
    spec=SPEC,
)


def test_what_a_job_holds_is_free_once_it_has_ended() -> None:
    nodes = [Node(Resources(4), {"a-a1": Resources(2), "": Resources(1)})]
    assert room(nodes, [JOB]) == [Resources(1)]
    assert room(nodes, [JOB], without=[JOB]) == [Resources(3)]


def test_workers_that_are_not_placed_yet_are_counted_somewhere() -> None:
    nodes = [Node(Resources(2), {"a-a1": Resources(1)}), Node(Resources(2))]
    assert room(nodes, [JOB]) == [Resources(0), Resources(2)]
    assert room(nodes, [replace(JOB, id="b")]) == [Resources(0), Resources(1)]


def test_workers_fill_one_node_after_another_as_far_as_there_is_room() -> None:
    assert less([Resources(3), Resources(3)], Resources(2), 2) == [Resources(1), Resources(1)]
    assert less([Resources(3)], Resources(2), 9) == [Resources(1)]


def test_by_both_accounts_free_is_the_smaller_of_each() -> None:
    assert both([Resources(3, 1)], [Resources(2, 4)]) == [Resources(2, 1)]
