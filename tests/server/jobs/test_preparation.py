from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from server.errors import TransitionError
from server.jobs import preparation, verbs
from server.jobs.job import LEAST_GRACE, Job
from server.jobs.queue import Action, Facts, decide, reasons
from server.jobs.resources import Node, Run, Submission
from server.jobs.status import JobStatus, TextState
from tests.serving import TINY, status
from workers.contract.documents import parse_spec
from workers.contract.records import RECORD
from workers.planning.size import Resources

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KILLED = Submission(Run.ENDED, end="its driver was killed by SIGKILL.", exit_code=-9)
DONE = Submission(Run.ENDED, exit_code=0)
BAD = Submission(Run.ENDED, exit_code=1)
RUNNING = Submission(Run.RUNNING)


def waiting(name: str, text: str = "t", **changes: Any) -> Job:
    """A job whose text is not prepared."""
    spec = parse_spec(TINY | {"parallel": {"workers": 1}} | changes)
    state = TextState.UNPREPARED
    return Job(id=name, name=name, total_steps=20, created_at=NOW, text_state=state, text_key=text, spec=spec)


def decided(*jobs: Job, cpus: int = 4, **known: Submission) -> list[tuple[str, Action]]:
    return [(each.job.id, each.action) for each in decide(facts(*jobs, cpus=cpus, **known))]


def facts(*jobs: Job, cpus: int = 4, **known: Submission) -> Facts:
    unfinished = [job for job in jobs if not job.status.is_terminal]
    preparing = [job for job in jobs if job.text_state.is_on_cluster]
    active = {job.id: RUNNING for job in jobs if job.status.is_active}
    return Facts(unfinished, active, [Node(Resources(cpus))], NOW, preparing=preparing, preparations=known)


def failed(job: Job) -> Job:
    return job.after(RECORD.validate_python(status(1, "FAILED", attempt=0, error="a.txt: not UTF-8; mend it")))


def test_a_text_is_prepared_once_for_all_jobs_that_have_it_and_no_worker_starts_before() -> None:
    a, b, other = waiting("a"), waiting("b"), waiting("c", "u")
    assert decided(a, b, other) == [("a", Action.PREPARE), ("c", Action.PREPARE)]
    a, other = preparation.begin(a), preparation.begin(other)
    assert decided(a, b, other, a=RUNNING, c=RUNNING) == []
    assert (a.preparation_id, a.status) == ("a-data", JobStatus.QUEUED)


def test_when_a_text_is_prepared_all_jobs_that_have_it_start() -> None:
    a, b = preparation.begin(waiting("a")), waiting("b")
    assert decided(a, b, a=DONE) == [("a", Action.SETTLE_TEXT)]
    done = preparation.settle(a, NOW, DONE)
    a, b = done, preparation.share(b, NOW, a, done)
    assert decided(a, b) == [("a", Action.ADMIT), ("b", Action.ADMIT)]


def test_a_job_whose_text_is_prepared_holds_nobody_back_and_says_how_far_it_has_come() -> None:
    first = replace(preparation.begin(waiting("a")), text_done=0.404)
    later = replace(waiting("c"), text_state=TextState.READY)
    known = facts(first, waiting("b"), later, a=RUNNING)
    assert [(each.job.id, each.action) for each in decide(known)] == [("c", Action.ADMIT)]
    assert reasons(known) == {"a": "preparing its text, 40 %", "b": "preparing its text, 40 % (with job a)"}


def test_only_so_many_texts_are_prepared_at_once_those_of_the_first_in_line_before_others() -> None:
    jobs = [replace(waiting(name, name), priority=priority) for name, priority in (("a", 0), ("b", 2), ("c", 1))]
    assert decided(*jobs) == [("b", Action.PREPARE), ("c", Action.PREPARE)]
    assert reasons(facts(*jobs))["a"] == "its text is prepared after those of job b and job c"


def test_a_job_that_can_never_fit_is_refused_before_its_text_is_prepared() -> None:
    wide = waiting("a", parallel={"workers": 1, "cpus_per_worker": 9})
    assert decided(wide) == [("a", Action.REFUSE)]


@pytest.mark.parametrize(
    ("done", "known", "action"),
    [
        (None, Submission(Run.UNKNOWN), Action.SUBMIT_TEXT),
        (0.5, Submission(Run.UNKNOWN), Action.SETTLE_TEXT),
        (None, Submission(Run.PENDING), None),
        (0.5, RUNNING, None),
        (0.5, Submission(Run.UNCLEAR), None),
        (0.5, KILLED, Action.SETTLE_TEXT),
    ],
)
def test_what_the_cluster_says_of_a_preparation_meets_one_decision(
    done: float | None, known: Submission, action: Action | None
) -> None:
    job = replace(preparation.begin(waiting("a")), text_done=done)
    assert decided(job, a=known) == ([] if action is None else [("a", action)])


@pytest.mark.parametrize("verb", [verbs.cancel, verbs.pause])
def test_a_preparation_is_ended_with_the_waiting_of_its_job_and_the_next_one_takes_over_after_that(verb: Any) -> None:
    a, b = verb(preparation.begin(waiting("a")), NOW), waiting("b")
    assert decided(a, b, a=RUNNING) == [("a", Action.STOP_TEXT)]
    assert decided(a, b, a=Submission(Run.UNCLEAR)) == []
    assert "being stopped" in reasons(facts(a, b, a=RUNNING))["b"]
    with pytest.raises(TransitionError, match="delete it once that has ended"):
        verbs.check_may_be_deleted(a)
    assert decided(a, b, a=KILLED) == [("a", Action.SETTLE_TEXT)]
    settled = preparation.settle(a, NOW, KILLED)
    assert (settled.text_state, settled.restarts, settled.error) == (TextState.UNPREPARED, 0, None)
    assert preparation.share(b, NOW, a, settled) == b
    assert decided(settled, b) == [("b", Action.PREPARE)]


def test_a_job_that_is_resumed_while_its_preparation_is_being_ended_begins_another_one_without_a_loss() -> None:
    job = verbs.resume(verbs.pause(preparation.begin(waiting("a")), NOW), NOW)
    assert decided(job, a=RUNNING) == [("a", Action.STOP_TEXT)]
    job = preparation.settle(job, NOW, KILLED)
    assert decided(job) == [("a", Action.PREPARE)]
    again = preparation.begin(job)
    assert (again.preparation_id, again.restarts) == ("a-data-2", 0)


def test_a_preparation_that_was_lost_is_begun_again_as_often_as_an_attempt() -> None:
    job = waiting("a", failures={"max_restarts": 1})
    once = preparation.settle(preparation.begin(job), NOW, KILLED)
    assert (once.status, once.restarts, decided(once)) == (JobStatus.QUEUED, 1, [("a", Action.PREPARE)])
    assert "SIGKILL" in str(once.interruption)
    assert preparation.settle(preparation.begin(once), NOW, DONE).restarts == 0, "what is done counts like a checkpoint"
    twice = preparation.settle(preparation.begin(once), NOW, KILLED)
    assert (twice.status, twice.attempt) == (JobStatus.FAILED, 0)
    assert "max_restarts allows 1 restart" in str(twice.error)
    assert "killed by SIGKILL" in str(twice.error)


def test_a_text_that_is_refused_fails_all_jobs_that_wait_for_it_with_the_same_words() -> None:
    a, b, other = failed(preparation.begin(waiting("a"))), waiting("b"), verbs.pause(waiting("c"), NOW)
    assert (a.status, a.error) == (JobStatus.FAILED, "a.txt: not UTF-8; mend it")
    settled = preparation.settle(a, NOW, BAD)
    b = preparation.share(b, NOW, a, settled)
    assert (b.status, b.error) == (a.status, a.error)
    assert preparation.share(other, NOW, a, settled) == other
    assert decided(verbs.retry(settled, NOW)) == [("a", Action.PREPARE)]


def test_a_preparation_that_has_refused_its_text_ends_by_itself_and_is_killed_where_it_does_not() -> None:
    job = failed(preparation.begin(waiting("a")))
    assert decided(job, waiting("b"), a=RUNNING) == []
    waited = {job.preparation_id: LEAST_GRACE}
    assert [each.action for each in decide(replace(facts(job, a=RUNNING), waited=waited))] == [Action.STOP_TEXT]
    assert decided(verbs.retry(job, NOW), a=RUNNING) == []
    assert decided(job, a=BAD) == [("a", Action.SETTLE_TEXT)]


def test_a_branch_is_not_failed_by_what_another_job_is_held_to() -> None:
    a = failed(preparation.begin(waiting("a")))
    branch = waiting("b", start_from={"run": "abc", "step": 4})
    assert preparation.share(branch, NOW, a, preparation.settle(a, NOW, BAD)) == branch


def test_a_job_that_fails_for_another_reason_fails_no_other_that_has_its_text() -> None:
    a, b = preparation.begin(waiting("a")).become(JobStatus.FAILED, NOW, "it fits no node"), waiting("b")
    assert decided(a, b, a=RUNNING) == [("a", Action.STOP_TEXT)]
    assert preparation.share(b, NOW, a, preparation.settle(a, NOW, BAD)) == b


def test_nothing_is_begun_for_a_job_that_has_been_cancelled_meanwhile() -> None:
    with pytest.raises(TransitionError):
        preparation.begin(verbs.cancel(waiting("a"), NOW))
