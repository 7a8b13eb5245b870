from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from server.errors import TransitionError
from server.jobs.job import LEAST_GRACE, Job
from server.jobs.status import JobStatus
from server.jobs.verbs import cancel, check_may_be_deleted, checkpoint, pause, resume, retry
from tests.serving import TINY
from workers.contract.documents import parse_spec
from workers.contract.push import Command

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REFUSED = "refused"
VERBS: dict[str, Callable[[Job], Job]] = {
    "pause": lambda job: pause(job, NOW),
    "resume": lambda job: resume(job, NOW),
    "checkpoint": checkpoint,
    "cancel": lambda job: cancel(job, NOW),
    "retry": lambda job: retry(job, NOW),
}
TABLE = """
            pause    resume   checkpoint  cancel     retry
QUEUED      PAUSED   =        refused     CANCELLED  =
STARTING    PAUSING  =        refused     STOPPING   =
RUNNING     PAUSING  =        RUNNING     STOPPING   =
PAUSING     =        refused  refused     STOPPING   refused
PAUSED      =        QUEUED   refused     CANCELLED  refused
STOPPING    refused  refused  refused     =          refused
SUCCEEDED   refused  refused  refused     refused    refused
FAILED      refused  refused  refused     refused    QUEUED
CANCELLED   refused  refused  refused     =          QUEUED
"""
"""What each verb makes of a job in each state; = is the job as it is."""


def _job(state: JobStatus) -> Job:
    attempt_at = None if state is JobStatus.STARTING else NOW
    spec = parse_spec(TINY)
    return Job(
        id="0", name="n", total_steps=20, created_at=NOW, status=state, attempt=1, attempt_at=attempt_at, spec=spec
    )


def _cases() -> list[tuple[JobStatus, str, str]]:
    verbs, *rows = [line.split() for line in TABLE.split("\n") if line]
    return [(JobStatus(row[0]), verb, told) for row in rows for verb, told in zip(verbs, row[1:], strict=True)]


def test_the_table_has_every_state() -> None:
    assert {state for state, _, _ in _cases()} == set(JobStatus)


@pytest.mark.parametrize(("state", "verb", "told"), _cases())
def test_each_verb_in_each_state_does_what_the_table_says(state: JobStatus, verb: str, told: str) -> None:
    job = _job(state)
    if told == REFUSED:
        with pytest.raises(TransitionError, match=rf"job 0 is {state} \(.+\): \w+"):
            VERBS[verb](job)
    elif told == "=":
        assert VERBS[verb](job) is job
    else:
        assert VERBS[verb](job).status == told


@pytest.mark.parametrize(("state", "verb", "told"), [case for case in _cases() if case[2] not in {REFUSED, "="}])
def test_a_verb_that_is_repeated_changes_nothing_more(state: JobStatus, verb: str, told: str) -> None:
    once = VERBS[verb](_job(state))
    assert (once.status, VERBS[verb](once)) == (told, once)


def test_a_queued_job_is_cancelled_at_once() -> None:
    cancelled = cancel(_job(JobStatus.QUEUED), NOW)
    assert (cancelled.finished_at, cancelled.command) == (NOW, Command.NONE)


@pytest.mark.parametrize(("verb", "command"), [("cancel", Command.STOP), ("pause", Command.PAUSE)])
def test_a_running_job_is_asked_to_end_and_given_time(verb: str, command: Command) -> None:
    asked = VERBS[verb](_job(JobStatus.RUNNING))
    assert (asked.command, asked.is_ending, asked.grace) == (command, True, LEAST_GRACE)
    assert asked.stop_deadline == NOW + LEAST_GRACE


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_a_job_that_has_not_begun_to_train_is_given_no_time(verb: str) -> None:
    assert VERBS[verb](_job(JobStatus.STARTING)).grace == timedelta()


def test_a_checkpoint_is_not_asked_for_where_one_comes_anyway() -> None:
    making_way = _job(JobStatus.RUNNING).make_way()
    assert checkpoint(making_way) is making_way


def test_a_job_without_a_checkpoint_says_so_and_one_that_has_some_names_the_newest() -> None:
    with pytest.raises(TransitionError, match="it has none yet"):
        checkpoint(_job(JobStatus.QUEUED))
    with pytest.raises(TransitionError, match="its newest is of step 4,000"):
        checkpoint(replace(_job(JobStatus.PAUSED), checkpoint_step=4000))


def test_a_job_that_is_retried_begins_its_next_attempt_with_all_its_restarts_and_no_error() -> None:
    failed = replace(_job(JobStatus.RUNNING), restarts=4, checkpoint_step=7).become(JobStatus.FAILED, NOW, "no disk")
    again = retry(failed, NOW)
    assert (again.error, again.interruption, again.finished_at, again.restarts) == (None, None, None, 0)
    assert (again.checkpoint_step, again.attempt, again.admit(1, NOW).attempt) == (7, 1, 2)


def test_a_job_that_cannot_be_read_cannot_be_retried() -> None:
    with pytest.raises(TransitionError, match="cannot be started again: Its row is damaged"):
        retry(replace(_job(JobStatus.FAILED), spec=None, error="Its row is damaged."), NOW)


@pytest.mark.parametrize("state", list(JobStatus))
def test_only_what_is_paused_or_has_ended_may_be_deleted(state: JobStatus) -> None:
    if state in {JobStatus.PAUSED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}:
        check_may_be_deleted(_job(state))
    else:
        with pytest.raises(TransitionError, match="cancel it, and delete it once it has ended"):
            check_may_be_deleted(_job(state))
