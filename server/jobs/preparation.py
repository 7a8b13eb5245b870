"""The first stage of a job: its text is prepared on CPUs while the job waits, once for all jobs with the same text.

A preparation belongs to one job. It goes on while that job waits, and is ended once it does not; then the next job with
the same text takes over, and goes on from what is done.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from server.errors import TransitionError

from .job import Job
from .resources import Submission
from .status import JobStatus, TextState

AT_ONCE = 2
"""Each takes all processors that it finds; with two, a long one does not hold up all others."""


def is_wanted(job: Job) -> bool:
    """Whether the preparation that is on the cluster for this job is to go on."""
    return job.status is JobStatus.QUEUED and job.text_state is TextState.PREPARING


def begin(job: Job) -> Job:
    """Return the job as it is when the preparation of its text starts.

    Raises:
        TransitionError: the job does not wait for one any more.
    """
    if job.status is not JobStatus.QUEUED or job.text_state is not TextState.UNPREPARED:
        raise TransitionError(f"job {job.id} is {job.status} and its text {job.text_state}: nothing is to be prepared")
    number = job.preparations + 1
    return replace(job, text_state=TextState.PREPARING, text_done=None, interruption=None, preparations=number)


def settle(job: Job, now: datetime, submission: Submission) -> Job:
    """Return the job as it is once its preparation has ended on the cluster and all its records were read.

    One that has not said that it is done, or that the text is refused, was lost, as an attempt is that says nothing.
    """
    if not job.text_state.is_on_cluster:
        return job
    if submission.exit_code == 0:
        return _ready(replace(job, restarts=0))
    ended = replace(job, text_state=TextState.UNPREPARED, text_done=None)
    if not is_wanted(job):
        return ended
    why = f"The preparation of its text ended without saying why: {submission.end}"
    lost = replace(ended, interruption=why, restarts=job.restarts + 1)
    return lost if lost.exhaustion is None else lost.become(JobStatus.FAILED, now, f"{lost.exhaustion} {why}")


def share(job: Job, now: datetime, ended: Job, settled: Job) -> Job:
    """Return another job with the same text as it is once the preparation of that text has ended.

    Args:
        job: the other one.
        now: the time.
        ended: the job of the preparation, as it was when that had ended and all its records were read.
        settled: what `settle` made of it.
    """
    if job.status is not JobStatus.QUEUED or job.text_state is not TextState.UNPREPARED:
        return job
    if settled.text_state is TextState.READY:
        return _ready(job)
    # A branch is held to the text of its run, which may be why it was refused.
    if _is_refused(ended, settled) and job.valid_spec.start_from == settled.valid_spec.start_from:
        return job.become(JobStatus.FAILED, now, settled.error)
    return job


def _is_refused(ended: Job, settled: Job) -> bool:
    return ended.text_state is TextState.REFUSED and settled.status is JobStatus.FAILED


def to_begin(line: Sequence[Job], preparing: Sequence[Job]) -> list[Job]:
    """Return for which of the jobs in line the preparation of their text starts now.

    Args:
        line: jobs that wait, in their order.
        preparing: jobs for which a preparation is, or may be, on the cluster.
    """
    begun, keys = list[Job](), {_text(job) for job in preparing}
    for job in line:
        if job.text_state is TextState.UNPREPARED and _text(job) not in keys and len(keys) < AT_ONCE:
            begun.append(job)
            keys.add(_text(job))
    return begun


def reasons(line: Sequence[Job], preparing: Sequence[Job]) -> dict[str, str]:
    """Return why jobs in line that cannot start before their text is prepared wait, by id."""
    holders = {_text(job): job for job in (*to_begin(line, preparing), *preparing)}
    others = " and ".join(f"job {job.id}" for job in holders.values())
    behind = f"its text is prepared after those of {others}"
    unready = [job for job in line if job.text_state is not TextState.READY]
    return {job.id: _reason(job, holders.get(_text(job)), behind) for job in unready}


def _reason(job: Job, holder: Job | None, behind: str) -> str:
    if holder is None:
        return behind
    if holder.status is not JobStatus.QUEUED or holder.text_state is TextState.STOPPING:
        return f"its text is prepared once the preparation for job {holder.id}, which is being stopped, has ended"
    preparing = f"preparing its text, {holder.text_done or 0:.0%}".replace("%", " %")
    return preparing if job.id == holder.id else f"{preparing} (with job {holder.id})"


def _ready(job: Job) -> Job:
    return replace(job, text_state=TextState.READY, text_done=None, interruption=None, queue_reason=None)


def _text(job: Job) -> str:
    return job.text_key or job.id
