"""A job as a frozen value, and how requests and its run's records change it."""

import math
import secrets
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import ClassVar

from pydantic import ConfigDict

from server.errors import TransitionError
from workers.contract.problems import counted
from workers.contract.push import Command
from workers.contract.records import (
    CheckpointRecord,
    EvaluationRecord,
    LogRecord,
    Record,
    RunStatus,
    StatusRecord,
    StepRecord,
)
from workers.contract.spec.job import JobSpec

from .status import JobStatus, TextState

LEAST_GRACE = timedelta(seconds=60)
"""The shortest time that a run has to save a checkpoint and stop by itself, before the cluster kills it."""
GRACE_STEPS = 3
"""A run whose steps take long has the time of so many of them, with as many checkpoints."""

PACE_STEPS = 20
"""Steps over which the pace of a job is smoothed."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_EPOCH_MS = 1_735_689_600_000  # 2025-01-01
_LONGEST_S = 86_400.0  # a number of a run that is beyond all measure does not become a time beyond all dates


class _Ticks:
    """Milliseconds since the first possible id, each given out once: after one that is taken comes the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def take(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1_000_000 - _EPOCH_MS)
            return self._last


_ticks = _Ticks()


def new_job_id() -> str:
    """Return twelve letters and digits that sort by time of creation; no two of a process are the same."""
    ticks = _ticks.take()
    stamp = "".join(_ALPHABET[ticks >> shift & 31] for shift in range(35, -1, -5))
    return stamp + "".join(secrets.choice(_ALPHABET) for _ in range(4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training job. Times are aware UTC; the metrics are those of the last step."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    id: str
    """Twelve letters and digits that sort by time of creation."""
    name: str
    status: JobStatus = JobStatus.QUEUED
    step: int = 0
    """Optimizer steps taken so far, over all phases."""
    total_steps: int
    attempt: int = 0
    """Number of times that the job was started on the cluster."""
    attempt_at: datetime | None = None
    """When the current attempt began to train."""
    restarts: int = 0
    """Attempts lost since the last new checkpoint; failures.max_restarts says how many may be."""
    interruption: str | None = None
    """Why the last attempt ended before the run did; null once the next one starts."""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    unreachable_since: datetime | None = None
    """Since when the cluster has not answered for the job's attempt, or the attempt has not been heard of. Nothing
    follows from it: only the cluster's own word ends an attempt. Null while both are there, or neither is needed."""
    error: str | None = None
    """Why the job failed."""
    command: Command = Command.NONE
    """What the run is asked to do in the reply to its next push."""
    checkpoint_requests: int = 0
    """How many checkpoints were asked for. While `command` is `checkpoint`, the last of them is not there yet."""
    stop_deadline: datetime | None = None
    """When the cluster kills a run that was asked to stop and is still there. The server waits by a clock that nobody
    can set, and begins anew when it is restarted, so this is only about when."""
    world_size: int | None = None
    """Number of workers of the current attempt."""
    unigram_entropy_nats: float | None = None
    """Loss of the best guess that ignores the context: a model that learns gets below it."""
    phase: int | None = None
    """Number of the phase, from 0."""
    loss: float | None = None
    """In nats, mean over the global batch."""
    lr: float | None = None
    tokens_per_s: float | None = None
    pace_s: float | None = None
    """Wall time of a step, over about the last PACE_STEPS."""
    seconds_left: float | None = None
    """Time to the last step at this pace, checkpoints not counted."""
    evaluation: EvaluationRecord | None = None
    """The newest evaluation on held-out text, where the job has some."""
    checkpoint_step: int | None = None
    """Step of the newest checkpoint."""
    checkpoint_path: str | None = None
    checkpoint_s: float | None = None
    """How long it took to write, from its beginning until it was whole."""
    export_path: str | None = None
    """The folder on the server's machine with the finished model, which `GET /v1/jobs/{id}/export` reads; null where
    the run made none."""
    labels: dict[str, str] = field(default_factory=dict)
    owner: str = "admin"
    """Whose token submitted it."""
    priority: int = 0
    """Of the jobs that wait, those with a higher one start first; an hour of waiting raises it by one."""
    queue_reason: str | None = None
    """Why the job waits, and for what: in the queue, or for a cluster that does not take it now; else null."""
    session: str | None = None
    """Which cluster was to take the current attempt, by the name that Ray gives its session; null before the first one,
    and where an older version started it."""
    queued_at: datetime | None = None
    """Since when it waits, or waited last, if it was resumed or retried; null where that is since its creation."""
    text_state: TextState = TextState.READY
    """What has become of its text: prepared on CPUs before the job's workers start, or by them where it is little."""
    text_key: str | None = None
    """Of the jobs with the same one, one prepares the text for all; null where it was little."""
    text_done: float | None = None
    """Which part of the preparation is done; null where it has not begun to say, or nothing is prepared."""
    preparations: int = 0
    """How often the preparation of its text was started for this job."""
    parent: str | None = None
    """Of a clone or a branch: the id of the job that it was made from, or the path of the run folder."""
    sweep: str | None = None
    """The id of the sweep that it was submitted with."""
    parent_step: int | None = None
    """Of a branch: the step of the checkpoint that it goes on from."""
    spec: JobSpec | None
    """Null where the stored one cannot be read; such a job has failed, and `error` says why."""

    @property
    def valid_spec(self) -> JobSpec:
        """The specification of a job that has one, as every unfinished job does."""
        if self.spec is None:
            raise ValueError(f"job {self.id} has no readable specification: {self.error}")
        return self.spec

    @property
    def waits_since(self) -> datetime:
        """Since when the job waits, or waited last. An attempt that was lost does not cost it its place."""
        return self.queued_at or self.created_at

    @property
    def may_grow(self) -> bool:
        """Whether the job could run on more workers than it does."""
        return self.world_size is not None and self.world_size < max(self.valid_spec.world_sizes())

    @property
    def grace(self) -> timedelta:
        """How long the current attempt may take to save a checkpoint and end, once it was asked to or has said so.

        A run learns what it is asked at the end of a step, then takes a checkpoint. One that has not begun to train has
        nothing to save, and may never read its command.
        """
        if self.attempt_at is None and self.interruption is None:
            return timedelta()
        needed_s = (self.pace_s or 0.0) + (self.checkpoint_s or 0.0)
        return max(LEAST_GRACE, timedelta(seconds=min(_LONGEST_S, GRACE_STEPS * needed_s)))

    @property
    def is_ending(self) -> bool:
        """Whether the current attempt has only to save a checkpoint: it was asked to end, or has said that it does."""
        asked = self.status in {JobStatus.PAUSING, JobStatus.STOPPING}
        return asked or (self.status.is_active and self.interruption is not None)

    @property
    def submission_id(self) -> str:
        """What the cluster calls the current attempt."""
        return f"{self.id}-a{self.attempt}"

    @property
    def preparation_id(self) -> str:
        """What the cluster calls the newest preparation of its text."""
        return f"{self.id}-data" if self.preparations <= 1 else f"{self.id}-data-{self.preparations}"

    @property
    def exhaustion(self) -> str | None:
        """Why nothing more is tried after what was lost so far; None where something is."""
        if self.restarts <= (allowed := self.valid_spec.failures.max_restarts):
            return None
        return f"failures.max_restarts allows {counted(allowed, 'restart')} without a new checkpoint: none is left."

    def become(self, status: JobStatus, now: datetime, error: str | None = None) -> "Job":
        """Return the job in another state.

        Raises:
            TransitionError: the state does not follow on the present one.
        """
        if not self.status.may_become(status):
            raise TransitionError(_refusal(self, status))
        settled = status.is_terminal or status in {JobStatus.PAUSED, JobStatus.QUEUED}
        is_given_up = self.text_state is TextState.PREPARING
        return replace(
            self,
            status=status,
            error=error if error is not None else self.error,
            started_at=self.started_at or (now if status is JobStatus.RUNNING else None),
            finished_at=now if status.is_terminal else None,
            command=Command.NONE if settled else self.command,
            stop_deadline=None if settled else self.stop_deadline,
            seconds_left=None if settled else self.seconds_left,
            unreachable_since=None if settled else self.unreachable_since,
            queue_reason=None,
            text_state=TextState.STOPPING if is_given_up else self.text_state,
        )

    def admit(self, world_size: int, now: datetime, session: str | None = None) -> "Job":
        """Return the job as it is when an attempt starts on so many workers, on the cluster with this session."""
        return replace(
            self.become(JobStatus.STARTING, now),
            attempt=self.attempt + 1,
            attempt_at=None,
            interruption=None,
            world_size=world_size,
            session=session,
            command=Command.NONE,
            pace_s=None,
            seconds_left=None,
        )

    def unreachable(self, now: datetime) -> "Job":
        """Return the job as it is while nobody answers for its attempt: the same, but for since when that is so."""
        return replace(self, unreachable_since=self.unreachable_since or now) if self.status.is_active else self

    def reached(self) -> "Job":
        """Return the job as it is once its attempt is there again: it waits for no cluster to answer."""
        return replace(self, unreachable_since=None, queue_reason=None)

    def wait_because(self, reason: str | None) -> "Job":
        """Return a job that waits with the reason why; None where it has been taken."""
        waits = self.status in {JobStatus.QUEUED, JobStatus.STARTING}
        return replace(self, queue_reason=reason) if waits else self

    def make_way(self) -> "Job":
        """Return the job as it is once its run is asked to save a checkpoint and to end this attempt."""
        return replace(self, command=Command.MAKE_WAY) if self.status is JobStatus.RUNNING else self

    def settle(self, now: datetime, silence: str) -> "Job":
        """Return the job as it is once its attempt has ended on the cluster and all its records were read.

        It goes back into the queue for the next attempt, unless the run has ended too, or no restart is left. A run
        that has said nothing of its end was lost; `silence` is the reason then.
        """
        if not self.status.is_active:
            return self
        if self.status is JobStatus.STOPPING:
            return self.become(JobStatus.CANCELLED, now)
        if self.status is JobStatus.PAUSING:  # even if it was lost: who paused it decides when it goes on
            return replace(self, interruption=self.interruption or silence).become(JobStatus.PAUSED, now)
        ended = self if self.interruption is not None else _interrupted(self, silence, is_loss=True)
        if ended.exhaustion is not None:
            return ended.become(JobStatus.FAILED, now, f"{ended.exhaustion} {ended.interruption}")
        return ended.become(JobStatus.QUEUED, now)

    def after(self, record: Record) -> "Job":
        """Return the job as it is after its run reported `record`."""
        match record:
            case StatusRecord():
                return self._after_status(record)
            case StepRecord():
                before_s = record.step_s if self.pace_s is None else self.pace_s
                pace_s = before_s + (record.step_s - before_s) / PACE_STEPS
                return replace(
                    self,
                    step=record.step,
                    pace_s=pace_s,
                    seconds_left=_finite(pace_s * (self.total_steps - record.step)),
                    phase=record.phase,
                    loss=record.loss,
                    lr=record.lr,
                    tokens_per_s=record.tokens_per_s,
                )
            case EvaluationRecord():
                return replace(self, evaluation=record)
            case LogRecord() if record.done is not None and self.text_state is TextState.PREPARING:
                return replace(self, text_done=record.done)
            case CheckpointRecord():
                is_new = self.checkpoint_step is None or record.step > self.checkpoint_step
                restarts = 0 if is_new else self.restarts
                told = replace(self, checkpoint_step=record.step, checkpoint_path=record.path, restarts=restarts)
                is_awaited = self.command is Command.CHECKPOINT and record.fulfils(self.checkpoint_requests)
                return replace(told, checkpoint_s=record.seconds, command=Command.NONE if is_awaited else self.command)
        return self

    def _after_status(self, record: StatusRecord) -> "Job":
        is_over = self.status in _BETWEEN_ATTEMPTS and record.attempt == self.attempt > 0
        if is_over or record.attempt < self.attempt:
            return self  # an attempt that has ended says nothing of the next one
        told = replace(
            self,
            attempt=record.attempt,
            world_size=record.world_size or self.world_size,
            export_path=record.export_path or self.export_path,
            unigram_entropy_nats=self.unigram_entropy_nats
            if record.unigram_entropy_nats is None
            else record.unigram_entropy_nats,
        )
        # The job is settled once the attempt holds no workers any more.
        if record.status is RunStatus.INTERRUPTED:
            reason = record.error or "The run has saved a checkpoint and made way."
            return _interrupted(told, reason, is_loss=record.is_loss is not False)
        if record.status is RunStatus.PAUSED:
            paused = _interrupted(told, record.error or "The run has saved a checkpoint and paused.", is_loss=False)
            is_news = self.status.may_become(JobStatus.PAUSING)
            return paused.become(JobStatus.PAUSING, record.time) if is_news else paused
        if record.status is RunStatus.FAILED and record.attempt == 0 and self.text_state is TextState.PREPARING:
            told = replace(told, text_state=TextState.REFUSED)
        if record.status is RunStatus.RUNNING:
            told = replace(told, attempt_at=record.time)
        status = _REPORTED[record.status]
        # A run that was asked to stop may say once more that it runs.
        return told.become(status, record.time, record.error) if self.status.may_become(status) else told


def _interrupted(job: Job, reason: str, *, is_loss: bool) -> Job:
    return replace(job, interruption=reason, restarts=job.restarts + is_loss)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _refusal(job: Job, status: JobStatus) -> str:
    now = f"job {job.id} is {job.status} ({job.status.phrase})"
    if job.status.is_terminal:
        return f"{now} and has ended: its status no longer changes"
    return f"{now}: its status cannot change to {status} from there"


_BETWEEN_ATTEMPTS = {JobStatus.QUEUED, JobStatus.PAUSED}
_REPORTED = {
    status: JobStatus(status.value) for status in RunStatus if status not in {RunStatus.INTERRUPTED, RunStatus.PAUSED}
}
