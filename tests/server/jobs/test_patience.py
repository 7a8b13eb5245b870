from dataclasses import replace
from datetime import UTC, datetime, timedelta

from server.jobs.job import Job
from server.jobs.patience import LONGEST_PAUSE_S, Patience
from server.jobs.status import JobStatus
from tests.serving import TINY
from workers.contract.documents import parse_spec

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that goes on by one second, or by what it is told."""

    def __init__(self) -> None:
        self.passes, self.time = 1.0, 100.0

    def __call__(self) -> float:
        self.time += self.passes
        return self.time


def _job(name: str, state: JobStatus) -> Job:
    return Job(id=name, name=name, total_steps=1, created_at=NOW, status=state, attempt=1, spec=parse_spec(TINY))


def test_each_attempt_is_waited_for_from_the_first_look_that_sees_it_ending() -> None:
    patience, first, second = Patience(Clock()), _job("a", JobStatus.STOPPING), _job("b", JobStatus.PAUSING)
    assert patience.look([first, _job("c", JobStatus.RUNNING)]) == {"a": timedelta()}
    assert patience.look([first, second]) == {"a": timedelta(seconds=1), "b": timedelta()}
    assert patience.look([second]) == {"b": timedelta(seconds=1)}
    assert patience.look([first, second]) == {"a": timedelta(), "b": timedelta(seconds=2)}


def test_the_next_attempt_and_the_next_server_begin_anew() -> None:
    clock, job = Clock(), _job("a", JobStatus.STOPPING)
    patience = Patience(clock)
    patience.look([job])
    assert patience.look([job])["a"] == timedelta(seconds=1)
    assert patience.look([replace(job, attempt=2)])["a"] == timedelta()
    assert Patience(clock).look([job])["a"] == timedelta()


def test_the_time_in_which_the_server_itself_stood_still_is_not_held_against_a_run() -> None:
    clock, job = Clock(), _job("a", JobStatus.STOPPING)
    patience = Patience(clock)
    patience.look([job])
    clock.passes = 3600.0
    assert patience.look([job])["a"] == timedelta(seconds=LONGEST_PAUSE_S)
