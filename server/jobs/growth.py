"""Whether a job that trains should start again on more workers, now that there is room for them."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from workers.contract.push import Command
from workers.planning.size import Resources, size_that_fits

from .job import Job
from .status import JobStatus

GROWTH_AFTER = timedelta(minutes=10)
"""An attempt trains at least this long before it makes way for a larger one."""
GROWTH_SAVES = timedelta(minutes=5)
"""So much sooner must the larger attempt be done, were it as much faster as it is larger: a start takes a minute."""


def larger_size(job: Job, room: Iterable[Resources], now: datetime) -> int | None:
    """Return on how many workers the next attempt should go on; None where the present one should stay.

    Args:
        job: an active job.
        room: what is free on each node, and what the job's own workers hold there.
        now: the time, aware.
    """
    if job.status is not JobStatus.RUNNING or job.command is not Command.NONE:
        return None
    if job.world_size is None or job.seconds_left is None or job.attempt_at is None:
        return None
    size = size_that_fits(job.valid_spec, room)
    if size is None or size <= job.world_size or now - job.attempt_at < GROWTH_AFTER:
        return None
    saved_s = job.seconds_left * (1 - job.world_size / size)
    return size if saved_s >= GROWTH_SAVES.total_seconds() else None
