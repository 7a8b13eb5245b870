"""The statuses of a job, and which may follow which; and those of the preparation of its text."""

from enum import StrEnum
from typing import Self


class JobStatus(StrEnum):
    """The status of a job."""

    QUEUED = "QUEUED", "waiting for free processors"
    STARTING = "STARTING", "started on the cluster, no record from it yet"
    RUNNING = "RUNNING", "training"
    PAUSING = "PAUSING", "asked to save a checkpoint and pause"
    PAUSED = "PAUSED", "paused at its last checkpoint"
    STOPPING = "STOPPING", "asked to save a checkpoint and stop"
    SUCCEEDED = "SUCCEEDED", "finished all its steps"
    FAILED = "FAILED", "ended by an error before its last step"
    CANCELLED = "CANCELLED", "stopped on request"

    phrase: str

    def __new__(cls, value: str, phrase: str = "") -> Self:
        """Keep the phrase beside the value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.phrase = phrase
        return member

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended; only a retry has it go on."""
        return self in _TERMINAL

    @property
    def is_active(self) -> bool:
        """Whether the job has, or should have, processors of the cluster."""
        return self in _ACTIVE

    def may_become(self, other: "JobStatus") -> bool:
        """Whether `other` may be the next status."""
        return other in _FOLLOWERS[self]


_TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
_ACTIVE = frozenset({JobStatus.STARTING, JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.STOPPING})
_FOLLOWERS: dict[JobStatus, frozenset[JobStatus]] = {
    # A run that reports is there, whatever the server knew of it: RUNNING may follow QUEUED. A job whose attempt was
    # interrupted waits for the next one: QUEUED may follow RUNNING. Only a retry has QUEUED follow FAILED or CANCELLED.
    JobStatus.QUEUED: _TERMINAL | {JobStatus.STARTING, JobStatus.RUNNING, JobStatus.PAUSED},
    JobStatus.STARTING: _TERMINAL | {JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.STOPPING},
    JobStatus.RUNNING: _TERMINAL | {JobStatus.QUEUED, JobStatus.PAUSING, JobStatus.STOPPING},
    JobStatus.PAUSING: _TERMINAL | {JobStatus.PAUSED, JobStatus.STOPPING},
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.STOPPING: _TERMINAL,
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),
}


class TextState(StrEnum):
    """What has become of a job's text, as far as that is a stage of its own."""

    UNPREPARED = "unprepared"
    PREPARING = "preparing"
    STOPPING = "stopping"
    """Its preparation is to end, since the job does not wait any more, and may still be on the cluster."""
    REFUSED = "refused"
    """Its preparation has said that the text cannot be used, and ends by itself."""
    READY = "ready"
    """Nothing has to be done before the job's workers start."""

    @property
    def is_on_cluster(self) -> bool:
        """Whether a preparation is, or may be, on the cluster."""
        return self in {TextState.PREPARING, TextState.STOPPING, TextState.REFUSED}
