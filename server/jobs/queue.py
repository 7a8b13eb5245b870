"""Decides which jobs start, wait or end now: a pure function from facts to decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from workers.contract.problems import counted
from workers.contract.push import Command
from workers.contract.spec.job import JobSpec
from workers.planning.size import shortage, size_that_fits

from .growth import larger_size
from .job import Job
from .resources import Resources, Run
from .status import JobStatus


class Action(StrEnum):
    """What can be done for a job."""

    ADMIT = "admit"
    SUBMIT = "submit"
    GROW = "grow"
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
    held = sum((_held(job) for job in active), Resources())
    if not queued:  # those go first
        decisions += _grow(active, facts.total - held, facts.now)
    return decisions + _admit(queued, facts.total, held)


def _decide_active(job: Job, facts: Facts) -> Decision | None:
    run = facts.runs[job.id]
    match run:
        case Run.ENDED:
            return Decision(job, Action.SETTLE)
        case Run.UNKNOWN if job.status is JobStatus.STARTING:
            return Decision(job, Action.SUBMIT)
        case Run.UNKNOWN:
            return Decision(job, Action.SETTLE)
    is_overdue = job.stop_deadline is not None and facts.now >= job.stop_deadline
    return Decision(job, Action.KILL) if job.status is JobStatus.STOPPING and is_overdue else None


def _grow(active: Sequence[Job], free: Resources, now: datetime) -> list[Decision]:
    """Have one job at a time make way for an attempt on more workers."""
    if any(job.command is Command.MAKE_WAY for job in active):
        return []
    for job in active:
        if size := larger_size(job, free + _held(job), now):
            return [Decision(job, Action.GROW, size, f"there is room for {counted(size, 'worker')}")]
    return []


def _admit(queued: Sequence[Job], total: Resources, held: Resources) -> list[Decision]:
    """Admit in order of arrival, each on the most workers that are free.

    A job that must wait for others to end holds back those behind it, so that it gets its turn. One that has trained
    already, on a node that is gone, waits for a new one.
    """
    decisions = []
    for job in queued:
        spec = job.valid_spec
        if problem := shortage(spec, total.cpus, total.gpus):
            if not job.attempt:
                decisions.append(Decision(job, Action.REFUSE, reason=str(problem)))
            continue
        room = total - held
        size = size_that_fits(spec, room.cpus, room.gpus)
        if size is None:
            break
        held += _worker(spec) * size
        decisions.append(Decision(job, Action.ADMIT, size))
    return decisions


def _worker(spec: JobSpec) -> Resources:
    return Resources(spec.parallel.cpus_per_worker, spec.parallel.gpus_per_worker)


def _held(job: Job) -> Resources:
    spec = job.valid_spec
    return _worker(spec) * (job.world_size or max(spec.world_sizes()))
