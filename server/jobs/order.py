"""In which order waiting jobs are started."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from .job import Job


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator decides about the queue."""

    priority_per_hour: float = 1.0
    """So much does an hour of waiting raise a job's priority, so that no job waits for ever; 0 where it does not."""
    jobs_per_owner: int | None = None
    """So many jobs of one owner may be on the cluster at a time; None where there is no limit."""


DEFAULT_RULES = Rules()


def in_line(waiting: Iterable[Job], rules: Rules, now: datetime) -> list[Job]:
    """Return these jobs, given with the oldest first, in the order in which they are to start."""
    return sorted(waiting, key=lambda job: (-priority_now(job, rules, now), job.waits_since))


def priority_now(job: Job, rules: Rules, now: datetime) -> float:
    """Return a job's priority with what its waiting adds to it."""
    waited = max(now - job.waits_since, timedelta())  # a clock may have been set back
    return job.priority + rules.priority_per_hour * (waited / timedelta(hours=1))
