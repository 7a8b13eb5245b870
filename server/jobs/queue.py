"""Decides which jobs start, wait or end now: a pure function from facts to decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from workers.contract.problems import counted
from workers.contract.push import Command
from workers.planning.size import Resources, shortage, size_that_fits, worker_of

from .growth import larger_size
from .job import Job
from .order import DEFAULT_RULES, Rules, in_line
from .resources import Node, Run, Submission
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
    submissions: Mapping[str, Submission]
    """What the cluster says of the current attempt of each active job, by job id."""
    nodes: Sequence[Node]
    now: datetime
    waited: Mapping[str, timedelta] = field(default_factory=dict)
    """How long each attempt that is to end has been waited for, by submission."""
    rules: Rules = DEFAULT_RULES


def decide(facts: Facts) -> list[Decision]:
    """Decide for every job; jobs that need nothing are not mentioned."""
    active = [job for job in facts.jobs if job.status.is_active]
    decisions = [decision for job in active if (decision := _decide_active(job, facts))]
    queued = in_line((job for job in facts.jobs if job.status is JobStatus.QUEUED), facts.rules, facts.now)
    if not queued:  # those go first
        decisions += _grow(active, facts)
    return decisions + _admit(queued, [node.total for node in facts.nodes], _free(facts.nodes, active))


def _decide_active(job: Job, facts: Facts) -> Decision | None:
    submission = facts.submissions[job.id]
    match submission.run:
        case Run.UNKNOWN if job.status is JobStatus.STARTING:
            return Decision(job, Action.SUBMIT)
        case Run.UNKNOWN | Run.ENDED:
            return Decision(job, Action.SETTLE, reason=submission.end)
        case Run.UNCLEAR:
            return None
    waited = facts.waited.get(job.submission_id)
    return Decision(job, Action.KILL) if waited is not None and waited >= job.grace else None


def _grow(active: Sequence[Job], facts: Facts) -> list[Decision]:
    """Have one job at a time make way for an attempt on more workers."""
    if any(job.command is Command.MAKE_WAY for job in active):
        return []
    for job in active:
        if size := larger_size(job, _free(facts.nodes, active, without=job), facts.now):
            return [Decision(job, Action.GROW, size, f"there is room for {counted(size, 'worker')}")]
    return []


def _admit(queued: Sequence[Job], total: Sequence[Resources], free: Sequence[Resources]) -> list[Decision]:
    """Admit in this order, each on the most workers that there is room for.

    A job that must wait for others to end holds back those behind it, so that it gets its turn. One that has trained
    already, on a node that is gone, waits for a new one.
    """
    decisions = []
    for job in queued:
        spec = job.valid_spec
        if problem := shortage(spec, total):
            if not job.attempt:
                decisions.append(Decision(job, Action.REFUSE, reason=str(problem)))
            continue
        size = size_that_fits(spec, free)
        if size is None:
            break
        free = _less(free, worker_of(spec), size)
        decisions.append(Decision(job, Action.ADMIT, size))
    return decisions


def _free(nodes: Sequence[Node], active: Sequence[Job], without: Job | None = None) -> list[Resources]:
    """Return what is free on each node, or would be if the job `without` had ended."""
    free = [node.free(without.submission_id if without else None) for node in nodes]
    for job in active:
        if job is not without:
            worker = worker_of(job.valid_spec)
            held = sum((node.held.get(job.submission_id, Resources()) for node in nodes), Resources())
            missing = (job.world_size or max(job.valid_spec.world_sizes())) - held.hold(worker)
            free = _less(free, worker, missing)
    return free


def _less(free: Sequence[Resources], worker: Resources, workers: int) -> list[Resources]:
    """Return what is left on each node once so many workers, as far as there is room, have been put there.

    Where workers will be that the cluster has not placed yet is only assumed.
    """
    left = []
    for room in free:
        here = min(max(workers, 0), room.hold(worker))
        workers -= here
        left.append(room - worker * here)
    return left
