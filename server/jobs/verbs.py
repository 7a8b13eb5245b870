"""What users ask of a job that is there. Each request can be repeated: where it is fulfilled, nothing changes."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from server.errors import TransitionError
from workers.contract.push import Command

from .job import Job
from .status import JobStatus

_WAITS_OR_RUNS = {JobStatus.QUEUED, JobStatus.STARTING, JobStatus.RUNNING}


def pause(job: Job, now: datetime) -> Job:
    """Return the job as it is once it is asked to save a checkpoint and give its workers back.

    Raises:
        TransitionError: the job is being stopped, or has ended.
    """
    match job.status:
        case JobStatus.PAUSED | JobStatus.PAUSING:
            return job
        case JobStatus.QUEUED:
            return job.become(JobStatus.PAUSED, now)
        case JobStatus.STARTING | JobStatus.RUNNING:
            return _ask_to_end(job, JobStatus.PAUSING, Command.PAUSE, now)
    raise _refusal(job, "only a job that waits or runs can be paused")


def resume(job: Job, now: datetime) -> Job:
    """Return a job that was paused as it is once it waits for its next attempt.

    Raises:
        TransitionError: the job is still being paused, is being stopped, or has ended.
    """
    match job.status:
        case JobStatus.PAUSED:
            return replace(job.become(JobStatus.QUEUED, now), queued_at=now)
        case status if status in _WAITS_OR_RUNS:
            return job
        case JobStatus.PAUSING:
            raise _refusal(job, f"resume it when it is {JobStatus.PAUSED}")
        case JobStatus.FAILED | JobStatus.CANCELLED:
            raise _refusal(job, "only a paused job can be resumed; retry this one")
    raise _refusal(job, "only a paused job can be resumed")


def checkpoint(job: Job) -> Job:
    """Return the job as it is once its run is asked to save a checkpoint and to go on.

    Raises:
        TransitionError: the job does not train.
    """
    if job.status is not JobStatus.RUNNING:
        newest = "it has none yet" if job.checkpoint_step is None else f"its newest is of step {job.checkpoint_step:,}"
        raise _refusal(job, f"only a job that trains can save a checkpoint; {newest}")
    if job.command is not Command.NONE:  # this one was asked for already, or comes with what was asked for
        return job
    return replace(job, command=Command.CHECKPOINT, checkpoint_requests=job.checkpoint_requests + 1)


def cancel(job: Job, now: datetime) -> Job:
    """Return the job as it is after a request to stop it: at once if it waits, at a checkpoint if it runs.

    Raises:
        TransitionError: the job ended otherwise.
    """
    match job.status:
        case JobStatus.STOPPING | JobStatus.CANCELLED:
            return job
        case JobStatus.QUEUED | JobStatus.PAUSED:
            return job.become(JobStatus.CANCELLED, now)
        case JobStatus.SUCCEEDED | JobStatus.FAILED:
            raise _refusal(job, "it has ended already")
    return _ask_to_end(job, JobStatus.STOPPING, Command.STOP, now)


def retry(job: Job, now: datetime) -> Job:
    """Return a job that has failed or was cancelled as it is once it waits for its next attempt.

    It goes on from its newest checkpoint, with all its restarts.

    Raises:
        TransitionError: the job is being paused or stopped, has succeeded, or cannot be read.
    """
    match job.status:
        case status if status in _WAITS_OR_RUNS:
            return job
        case JobStatus.FAILED | JobStatus.CANCELLED if job.spec is None:
            raise TransitionError(f"job {job.id} cannot be started again: {job.error}")
        case JobStatus.FAILED | JobStatus.CANCELLED:
            again = replace(job.become(JobStatus.QUEUED, now), queued_at=now)
            return replace(again, error=None, interruption=None, restarts=0)
        case JobStatus.PAUSED:
            raise _refusal(job, "resume it")
        case JobStatus.SUCCEEDED:
            raise _refusal(job, "only a job that failed or was cancelled can be retried; clone this one")
    raise _refusal(job, "wait until it has ended")


def amend(job: Job, priority: int | None, labels: Mapping[str, str | None]) -> Job:
    """Return the job with another priority, and with these labels set, or removed where they are None.

    Raises:
        TransitionError: the priority is to change, which counts only while a job waits, and it does not wait.
    """
    if priority is not None and priority != job.priority:
        if job.status not in {JobStatus.QUEUED, JobStatus.PAUSED}:
            raise _refusal(job, "its priority counts only while it waits")
        job = replace(job, priority=priority)
    kept = {key: value for key, value in {**job.labels, **labels}.items() if value is not None}
    return replace(job, labels=kept)


def check_may_be_deleted(job: Job) -> None:
    """Check that nothing runs, or is to run, of a job.

    Raises:
        TransitionError: something does.
    """
    if not (job.status.is_terminal or job.status is JobStatus.PAUSED):
        raise _refusal(job, "cancel it, and delete it once it has ended")
    if job.text_state.is_on_cluster:
        raise _refusal(job, "the preparation of its text is being stopped: delete it once that has ended")


def _ask_to_end(job: Job, status: JobStatus, command: Command, now: datetime) -> Job:
    return replace(job.become(status, now), command=command, stop_deadline=now + job.grace)


def _refusal(job: Job, remedy: str) -> TransitionError:
    return TransitionError(f"job {job.id} is {job.status} ({job.status.phrase}): {remedy}")
