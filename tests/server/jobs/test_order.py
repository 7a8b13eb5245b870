from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from server.jobs.job import Job
from server.jobs.order import Rules, in_line
from tests.serving import TINY
from workers.contract.documents import parse_spec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = parse_spec(TINY)


def _job(name: str, hours: float = 0.0, priority: int = 0) -> Job:
    created_at = NOW - timedelta(hours=hours)
    return Job(id=name, name=name, total_steps=20, created_at=created_at, priority=priority, spec=SPEC)


def _order(*jobs: Job, rules: Rules = Rules()) -> str:  # noqa: B008 -- frozen
    return "".join(job.id for job in in_line(jobs, rules, NOW))


def test_a_higher_priority_comes_first_and_within_it_who_came_first() -> None:
    assert _order(_job("a", 0.2), _job("b", 0.1, 1), _job("c", 0.3), _job("d", 0.3)) == "bcda"


def test_an_hour_of_waiting_raises_the_priority_by_one_or_by_what_is_set() -> None:
    waiting = _job("a", hours=3), _job("b", priority=2), _job("c", priority=4)
    assert _order(*waiting) == "cab"
    assert _order(*waiting, rules=Rules(priority_per_hour=0)) == "cba"
    assert _order(*waiting, rules=Rules(priority_per_hour=2)) == "acb"


def test_the_time_in_which_a_job_was_paused_is_no_waiting() -> None:
    resumed = replace(_job("a", hours=9), queued_at=NOW)
    assert _order(resumed, _job("b", hours=1)) == "ba"


@given(st.lists(st.tuples(st.floats(-1, 100), st.integers(-9, 9)), max_size=9))
def test_every_job_stands_in_line_once(waiting: list[tuple[float, int]]) -> None:
    jobs = [_job(str(number), hours, priority) for number, (hours, priority) in enumerate(waiting)]
    assert sorted(in_line(jobs, Rules(), NOW), key=lambda job: job.id) == jobs


@given(st.integers(-1000, 1000), st.floats(0, 10_000))
def test_no_job_is_overtaken_for_ever(priority: int, hours: float) -> None:
    """Whoever comes later than the difference in priority, in hours, stands behind."""
    waiting, late = _job("a", hours + 2001, priority), _job("b", hours, 1000)
    assert _order(late, waiting) == "ab"
