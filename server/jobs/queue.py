"""Decides which jobs start, wait or end now: a pure function from facts to decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from workers.contract.problems import counted
from workers.contract.push import Command

from .admission import Turn, turns
from .growth import larger_size
from .job import Job
from .order import DEFAULT_RULES, Rules, in_line
from .resources import Node, Run, Submission
from .room import room
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
    session: str | None = None
    """Which cluster says this; it is only asked where jobs start."""


def decide(facts: Facts) -> list[Decision]:
    """Decide for every job; jobs that need nothing are not mentioned."""
    active = [job for job in facts.jobs if job.status.is_active]
    decisions = [decision for job in active if (decision := _decide_active(job, facts))]
    waiting = _turns(facts)
    if not waiting:  # those go first
        decisions += _grow(active, facts)
    return decisions + [_decide_waiting(turn) for turn in waiting if turn.workers or turn.refusal]


def reasons(facts: Facts) -> dict[str, str]:
    """Return why jobs that wait do so, by id."""
    return {turn.job.id: turn.reason for turn in _turns(facts) if turn.reason and not turn.refusal}


def _turns(facts: Facts) -> list[Turn]:
    line = in_line((job for job in facts.jobs if job.status is JobStatus.QUEUED), facts.rules, facts.now)
    return turns(line, [job for job in facts.jobs if job.status.is_active], facts.nodes, facts.rules)


def _decide_waiting(turn: Turn) -> Decision:
    if turn.refusal:
        return Decision(turn.job, Action.REFUSE, reason=turn.refusal)
    return Decision(turn.job, Action.ADMIT, turn.workers)


def _decide_active(job: Job, facts: Facts) -> Decision | None:
    submission = facts.submissions[job.id]
    match submission.run:
        case Run.UNKNOWN if job.status is JobStatus.STARTING and job.session in {None, facts.session}:
            return Decision(job, Action.SUBMIT)  # this cluster, which takes it once, was to have it
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
        if size := larger_size(job, room(facts.nodes, active, without=[job]), facts.now):
            return [Decision(job, Action.GROW, size, f"there is room for {counted(size, 'worker')}")]
    return []
