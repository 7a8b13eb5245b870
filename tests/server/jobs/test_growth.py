from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.jobs.growth import GROWTH_AFTER, larger_size
from server.jobs.job import Job
from server.jobs.status import JobStatus
from tests.serving import TINY
from workers.contract.documents import parse_spec
from workers.contract.push import Command
from workers.planning.size import Resources

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = parse_spec(TINY | {"parallel": {"workers": {"min": 1, "max": 2}}})
JOB = Job(
    id="0",
    name="n",
    total_steps=20,
    created_at=NOW,
    status=JobStatus.RUNNING,
    attempt=1,
    attempt_at=NOW - GROWTH_AFTER,
    world_size=1,
    seconds_left=3600.0,
    spec=SPEC,
)


def test_a_job_grows_to_the_most_workers_that_there_is_room_for() -> None:
    assert larger_size(JOB, [Resources(cpus=8)], NOW) == 2
    assert larger_size(JOB, [Resources(cpus=1)], NOW) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt_at": NOW - GROWTH_AFTER + timedelta(seconds=1)},
        {"attempt_at": None},
        {"seconds_left": 599.0},
        {"seconds_left": None},
        {"world_size": 2},
        {"status": JobStatus.STARTING},
        {"status": JobStatus.STOPPING},
        {"command": Command.CHECKPOINT},
        {"spec": parse_spec(TINY)},
    ],
    ids=str,
)
def test_a_job_stays_as_it_is_where_it_would_gain_little_or_has_just_begun(changes: dict[str, Any]) -> None:
    assert larger_size(replace(JOB, **changes), [Resources(cpus=8)], NOW) is None


def test_a_job_whose_workers_double_must_have_ten_minutes_left() -> None:
    assert larger_size(replace(JOB, seconds_left=600.0), [Resources(cpus=8)], NOW) == 2
