"""Decides which jobs start, wait or end now: a pure function from facts to decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from workers.contract.spec.job import JobSpec
from workers.planning.size import shortage, size_that_fits

from .job import Job
from .resources import Resources, Run
from .status import JobStatus


class Action(StrEnum):
    """What can be done for a job."""

    ADMIT = "admit"
    SUBMIT = "submit"
    RESTART = "restart"
    KILL = "kill"
    SETTLE = "settle"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do for one job now."""

    job: Job
    action: Action
    world_size: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a decision depends on."""

    jobs: Sequence[Job]
    """Unfinished jobs, the oldest first."""
    runs: Mapping[str, Run]
    """What the cluster says of the current attempt of each active job, by job id."""
    total: Resources
    now: datetime


def decide(facts: Facts) -> list[Decision]:
    """Decide for every job; jobs that need nothing are not mentioned."""
    active = [job for job in facts.jobs if job.status.is_active]
    decisions = [decision for job in active if (decision := _decide_active(job, facts))]
    queued = [job for job in facts.jobs if job.status is JobStatus.QUEUED]
    return decisions + _admit(queued, facts.total, sum((_held(job) for job in active), Resources()))


def _decide_active(job: Job, facts: Facts) -> Decision | None:
    run = facts.runs[job.id]
    match run:
        case Run.ENDED:
            return Decision(job, Action.SETTLE)
        case Run.UNKNOWN if job.status is JobStatus.STARTING:
            return Decision(job, Action.SUBMIT)
        case Run.UNKNOWN if job.status is JobStatus.STOPPING:
            return Decision(job, Action.SETTLE)
        case Run.UNKNOWN:
            return Decision(job, Action.RESTART, _size_of_restart(job, facts))
    is_overdue = job.stop_deadline is not None and facts.now >= job.stop_deadline
    return Decision(job, Action.KILL) if job.status is JobStatus.STOPPING and is_overdue else None


def _size_of_restart(job: Job, facts: Facts) -> int:
    """Return the most workers that fit beside the other active jobs; where none do, as many as the job had."""
    others = (_held(other) for other in facts.jobs if other.status.is_active and other.id != job.id)
    room = facts.total - sum(others, Resources())
    return size_that_fits(job.valid_spec, room.cpus, room.gpus) or job.world_size or min(job.valid_spec.world_sizes())


def _admit(queued: Sequence[Job], total: Resources, held: Resources) -> list[Decision]:
    """Admit in order of arrival; a job that must wait holds back those behind it, so that it gets its turn."""
    decisions = []
    for job in queued:
        spec = job.valid_spec
        size = size_that_fits(spec, total.cpus, total.gpus)
        if size is None:
            decisions.append(Decision(job, Action.REFUSE, reason=str(shortage(spec, total.cpus, total.gpus))))
            continue
        need = _worker(spec) * size
        if not need.fit(total - held):
            break
        held += need
        decisions.append(Decision(job, Action.ADMIT, size))
    return decisions


def _worker(spec: JobSpec) -> Resources:
    return Resources(spec.parallel.cpus_per_worker, spec.parallel.gpus_per_worker)


def _held(job: Job) -> Resources:
    spec = job.valid_spec
    return _worker(spec) * (job.world_size or max(spec.world_sizes()))
