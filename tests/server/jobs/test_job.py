from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import TransitionError
from server.jobs.job import LEAST_GRACE, Job, new_job_id
from server.jobs.status import JobStatus
from server.jobs.verbs import cancel, checkpoint, pause
from tests.serving import TINY, status, step
from workers.contract.documents import parse_spec
from workers.contract.push import Command
from workers.contract.records import RECORD, RunStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _job(state: JobStatus = JobStatus.QUEUED) -> Job:
    spec = parse_spec(TINY)
    return Job(id="0", name="n", total_steps=20, created_at=NOW, status=state, attempt=1, spec=spec)


def _training() -> Job:
    return replace(_job(JobStatus.RUNNING), attempt_at=NOW)


def test_the_time_left_follows_the_pace_of_the_recent_steps_and_begins_anew_with_an_attempt() -> None:
    job = _job(JobStatus.RUNNING)
    for number in range(1, 6):
        job = job.after(RECORD.validate_python(step(number, number, step_s=2.0)))
    assert (job.pace_s, job.seconds_left) == (2.0, 30.0)
    job = job.after(RECORD.validate_python(step(6, 6, step_s=4.0)))
    assert job.pace_s == pytest.approx(2.1)
    assert job.become(JobStatus.SUCCEEDED, NOW).seconds_left is None
    again = job.settle(NOW, "lost").admit(1, NOW)
    assert (again.pace_s, again.seconds_left) == (None, None)


def test_a_time_left_that_is_beyond_all_numbers_is_not_told() -> None:
    assert _job(JobStatus.RUNNING).after(RECORD.validate_python(step(1, 1, step_s=1e308))).seconds_left is None


def test_a_run_whose_steps_and_checkpoints_are_slow_is_given_the_time_of_three_of_each() -> None:
    slow = _told(_training(), step(1, 1, step_s=62.0), _checkpoint(2, 1, seconds=38.0))
    assert slow.grace == timedelta(minutes=5)
    assert cancel(slow, NOW).stop_deadline == NOW + timedelta(minutes=5)
    assert _told(_training(), _checkpoint(1, 0, seconds=30.0)).grace == timedelta(seconds=90)
    assert _told(_training(), step(1, 1, step_s=1e308)).grace == timedelta(days=1)


def test_a_job_that_was_not_heard_of_yet_is_given_no_time() -> None:
    cancelled = cancel(_job(JobStatus.STARTING), NOW)
    assert (cancelled.grace, cancelled.stop_deadline) == (timedelta(), NOW)
    assert _told(cancelled, status(1, "RUNNING")).grace == LEAST_GRACE, "it has begun to train meanwhile"


@pytest.mark.parametrize("state", [JobStatus.SUCCEEDED, JobStatus.FAILED])
def test_a_job_that_has_ended_does_not_change_by_itself(state: JobStatus) -> None:
    with pytest.raises(TransitionError, match=f"is {state} .* and has ended"):
        _job(state).become(JobStatus.CANCELLED, NOW)


def test_a_step_shows_in_the_job() -> None:
    job = _job(JobStatus.RUNNING).after(RECORD.validate_python(step(1, 7)))
    assert (job.step, job.loss, job.lr, job.tokens_per_s) == (7, 10 / 7, 0.01, 1000.0)


def test_a_job_knows_where_its_finished_model_lies() -> None:
    job = _job(JobStatus.RUNNING).after(RECORD.validate_python(status(1, "SUCCEEDED", export_path="/runs/0/export")))
    assert (job.status, job.export_path) == (JobStatus.SUCCEEDED, "/runs/0/export")


def test_a_job_whose_run_made_no_model_names_none() -> None:
    assert _job(JobStatus.RUNNING).after(RECORD.validate_python(status(1, "SUCCEEDED"))).export_path is None


def test_a_run_that_was_asked_to_stop_may_still_say_that_it_runs() -> None:
    stopping = cancel(_job(JobStatus.RUNNING), NOW)
    assert stopping.after(RECORD.validate_python(status(1, "RUNNING"))).status is JobStatus.STOPPING
    assert stopping.after(RECORD.validate_python(status(2, "CANCELLED"))).status is JobStatus.CANCELLED


def test_an_earlier_attempt_no_longer_speaks_for_the_job() -> None:
    second = _job(JobStatus.RUNNING).become(JobStatus.QUEUED, NOW).become(JobStatus.STARTING, NOW)
    again = RECORD.validate_python(status(9, "FAILED", attempt=0, error="late"))
    assert second.after(again) is second


def test_a_failure_keeps_its_reason_and_its_time() -> None:
    failed = _job(JobStatus.RUNNING).after(RECORD.validate_python(status(1, "FAILED", error="out of memory")))
    assert (failed.status, failed.error) == (JobStatus.FAILED, "out of memory")
    assert failed.finished_at is not None


def _told(job: Job, *records: dict[str, Any]) -> Job:
    for record in records:
        job = job.after(RECORD.validate_python(record))
    return job


def _checkpoint(seq: int, at: int, seconds: float = 0.1, **fields: Any) -> dict[str, Any]:
    what = {"kind": "checkpoint", "step": at, "path": f"/step-{at}", "size_bytes": 1, "seconds": seconds}
    return what | {"seq": seq, "time": NOW.isoformat()} | fields


def _interrupted(seq: int, **fields: Any) -> dict[str, Any]:
    return status(seq, "INTERRUPTED", **{"error": "worker 1 died", "is_loss": True} | fields)


def test_a_job_whose_attempt_was_interrupted_keeps_its_workers_until_the_attempt_has_ended() -> None:
    told = _told(_job(JobStatus.RUNNING), _interrupted(1))
    assert (told.status, told.restarts, told.interruption) == (JobStatus.RUNNING, 1, "worker 1 died")
    waiting = told.settle(NOW, "unheard")
    assert (waiting.status, waiting.restarts, waiting.interruption) == (JobStatus.QUEUED, 1, "worker 1 died")
    again = replace(waiting, command=Command.MAKE_WAY).admit(1, NOW)
    assert (again.attempt, again.interruption, again.restarts, again.command) == (2, None, 1, Command.NONE)


@pytest.mark.parametrize("job", [_job(JobStatus.STARTING), _job(JobStatus.RUNNING)])
def test_an_attempt_that_has_said_that_it_ends_has_some_time_for_it_and_the_next_one_is_not_ending(job: Job) -> None:
    told = _told(job, _interrupted(1))
    assert (told.is_ending, told.grace) == (True, LEAST_GRACE)
    waiting = told.settle(NOW, "unheard")
    assert (waiting.is_ending, waiting.admit(1, NOW).is_ending) == (False, False)


def test_a_job_is_ending_while_it_is_paused_or_stopped_and_no_longer() -> None:
    ending = [state for state in JobStatus if _job(state).is_ending]
    assert ending == [JobStatus.PAUSING, JobStatus.STOPPING]


def test_an_attempt_that_says_nothing_of_its_end_was_lost() -> None:
    waiting = _job(JobStatus.RUNNING).settle(NOW, "unheard")
    assert (waiting.status, waiting.restarts, waiting.interruption) == (JobStatus.QUEUED, 1, "unheard")


def test_losses_count_since_the_last_new_checkpoint() -> None:
    job = _job(JobStatus.RUNNING)
    lost = _interrupted(1)
    assert _told(job, lost, lost, lost).restarts == 3
    assert _told(job, lost, lost, _checkpoint(2, 10)).restarts == 0
    assert _told(job, _checkpoint(2, 10), lost, lost, _checkpoint(3, 10)).restarts == 2  # the same step again
    assert _told(job, _checkpoint(2, 10), lost, lost, _checkpoint(3, 11), lost).restarts == 1


def test_a_run_that_made_way_is_no_loss() -> None:
    spec = parse_spec(TINY | {"failures": {"max_restarts": 0}})
    job = replace(_job(JobStatus.RUNNING), spec=spec)
    for _ in range(3):
        job = _told(job, _interrupted(1, attempt=job.attempt, is_loss=False, error=None)).settle(NOW, "unheard")
        assert (job.status, job.restarts) == (JobStatus.QUEUED, 0)
        assert "made way" in (job.interruption or "")
        job = job.admit(1, NOW).become(JobStatus.RUNNING, NOW)


def test_after_as_many_losses_in_a_row_as_are_allowed_the_next_one_fails_the_job() -> None:
    job = _job(JobStatus.RUNNING)
    for _ in range(3):
        job = _told(job, _interrupted(1, attempt=job.attempt)).settle(NOW, "unheard")
        assert job.status is JobStatus.QUEUED
        job = job.admit(1, NOW).become(JobStatus.RUNNING, NOW)
    failed = _told(job, _interrupted(1, attempt=job.attempt)).settle(NOW, "unheard")
    assert failed.status is JobStatus.FAILED
    assert "allows 3 restarts without a new checkpoint: none is left. worker 1 died" in (failed.error or "")


@pytest.mark.parametrize("state", [JobStatus.STARTING, JobStatus.RUNNING, JobStatus.PAUSING])
def test_a_job_is_paused_only_when_its_attempt_holds_no_workers_any_more(state: JobStatus) -> None:
    said = _told(_job(state), status(1, "PAUSED"))
    assert (said.status, said.is_ending, said.restarts) == (JobStatus.PAUSING, True, 0)
    paused = said.settle(NOW, "unheard")
    assert (paused.status, paused.restarts, paused.command) == (JobStatus.PAUSED, 0, Command.NONE)
    assert paused.interruption == "The run has saved a checkpoint and paused."


def test_a_job_that_is_lost_while_it_is_being_paused_is_paused_and_says_so() -> None:
    lost = _told(_job(JobStatus.PAUSING), *(_interrupted(1) for _ in range(9))).settle(NOW, "unheard")
    assert (lost.status, lost.interruption) == (JobStatus.PAUSED, "worker 1 died")
    assert _job(JobStatus.PAUSING).settle(NOW, "unheard").interruption == "unheard"


@pytest.mark.parametrize("state", [JobStatus.QUEUED, JobStatus.PAUSED])
@pytest.mark.parametrize("said", ["RUNNING", "PAUSED", "CANCELLED", "FAILED", "SUCCEEDED", "INTERRUPTED"])
def test_an_attempt_that_has_ended_says_nothing_of_a_job_between_two_attempts(state: JobStatus, said: str) -> None:
    job = _job(state)
    assert _told(job, status(1, said, attempt=job.attempt)) is job


def test_a_checkpoint_that_was_asked_for_is_awaited_until_one_that_was_begun_later_is_there() -> None:
    asked = checkpoint(checkpoint(_job(JobStatus.RUNNING)))
    assert (asked.command, asked.checkpoint_requests) == (Command.CHECKPOINT, 1)
    begun_before = _told(asked, _checkpoint(1, 5, request=0))
    assert (begun_before.command, begun_before.checkpoint_step) == (Command.CHECKPOINT, 5)
    done = _told(begun_before, _checkpoint(2, 6, request=1))
    assert (done.command, checkpoint(done).checkpoint_requests) == (Command.NONE, 2)
    assert _told(asked, _checkpoint(1, 5)).command is Command.NONE, "an older run does not say which one it is"


def test_a_checkpoint_takes_back_no_other_command() -> None:
    assert _told(pause(_training(), NOW), _checkpoint(1, 5)).command is Command.PAUSE


@pytest.mark.parametrize(
    ("state", "settled"),
    [
        (JobStatus.STOPPING, JobStatus.CANCELLED),
        (JobStatus.PAUSING, JobStatus.PAUSED),
        (JobStatus.STARTING, JobStatus.QUEUED),
        (JobStatus.SUCCEEDED, JobStatus.SUCCEEDED),
        (JobStatus.FAILED, JobStatus.FAILED),
        (JobStatus.PAUSED, JobStatus.PAUSED),
    ],
)
def test_what_follows_the_end_of_an_attempt_depends_on_what_was_asked_of_it(
    state: JobStatus, settled: JobStatus
) -> None:
    assert _job(state).settle(NOW, "unheard").status is settled


def test_the_best_guess_without_context_is_remembered_from_the_first_record() -> None:
    told = _job(JobStatus.STARTING).after(RECORD.validate_python(status(1, "RUNNING", unigram_entropy_nats=6.1)))
    assert told.after(RECORD.validate_python(status(2, "RUNNING"))).unigram_entropy_nats == 6.1


@given(st.data())
def test_the_records_of_a_run_never_bring_a_job_to_a_forbidden_state(data: st.DataObject) -> None:
    job = _job(data.draw(st.sampled_from(list(JobStatus))))
    reported = st.lists(st.sampled_from([each.value for each in RunStatus]))
    for seq, state in enumerate(data.draw(reported), 1):
        after = job.after(RECORD.validate_python(status(seq, state)))
        assert after.status is job.status or job.status.may_become(after.status)
        job = after


def test_ids_sort_by_time_and_are_safe_in_urls_and_file_names() -> None:
    ids = [new_job_id() for _ in range(1000)]
    assert all(len(one) == 12 and one.isalnum() and one.islower() for one in ids if not one.isdigit())
    assert [one[:8] for one in ids] == sorted({one[:8] for one in ids})  # so no two are the same
