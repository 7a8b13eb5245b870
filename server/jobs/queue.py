"""Decides which jobs start, wait or end now: a pure function from facts to decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property

from workers.contract.problems import counted
from workers.contract.push import Command

from . import preparation
from .admission import Turn, turns
from .growth import larger_size
from .job import LEAST_GRACE, Job
from .order import DEFAULT_RULES, Rules, in_line
from .resources import Node, Run, Submission
from .room import room
from .status import JobStatus, TextState


class Action(StrEnum):
    """What can be done for a job."""

    ADMIT = "admit"
    SUBMIT = "submit"
    GROW = "grow"
    KILL = "kill"
    SETTLE = "settle"
    REFUSE = "refuse"
    PREPARE = "prepare the text"
    SUBMIT_TEXT = "submit the preparation"
    STOP_TEXT = "stop the preparation"
    SETTLE_TEXT = "settle the preparation"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do for one job now."""

    job: Job
    action: Action
    world_size: int = 0
    reason: str = ""
    submission: Submission | None = None
    """What has ended, of a preparation."""


@dataclass(frozen=True)
class Facts:
    """Everything that a decision depends on."""

    jobs: Sequence[Job]
    """Unfinished jobs, the oldest first."""
    submissions: Mapping[str, Submission]
    """What the cluster says of the current attempt of each active job, by job id."""
    nodes: Sequence[Node]
    now: datetime
    waited: Mapping[str, timedelta] = field(default_factory=dict)
    """How long each attempt and preparation that is to end has been waited for, by submission."""
    rules: Rules = DEFAULT_RULES
    session: str | None = None
    """Which cluster says this; it is only asked where jobs start."""
    preparing: Sequence[Job] = ()
    """Jobs of any status for which a preparation of their text is, or may be, on the cluster."""
    preparations: Mapping[str, Submission] = field(default_factory=dict)
    """What the cluster says of each of these, by job id."""

    @cached_property
    def turns(self) -> list[Turn]:
        """What becomes of the jobs in line, in their order."""
        line = in_line((job for job in self.jobs if job.status is JobStatus.QUEUED), self.rules, self.now)
        texts = preparation.reasons(line, self.preparing)
        return turns(line, [job for job in self.jobs if job.status.is_active], self.nodes, self.rules, texts)


def decide(facts: Facts) -> list[Decision]:
    """Decide for every job; jobs that need nothing are not mentioned."""
    active = [job for job in facts.jobs if job.status.is_active]
    decisions = [decision for job in active if (decision := _decide_active(job, facts))]
    decisions += [decision for job in facts.preparing if (decision := _decide_preparing(job, facts))]
    if not any(turn.job.text_state is TextState.READY for turn in facts.turns):  # those go first
        decisions += _grow(active, facts)
    decisions += [_decide_waiting(turn) for turn in facts.turns if turn.workers or turn.refusal]
    line = [turn.job for turn in facts.turns if not turn.refusal]
    return decisions + [Decision(job, Action.PREPARE) for job in preparation.to_begin(line, facts.preparing)]


def reasons(facts: Facts) -> dict[str, str]:
    """Return why jobs that wait do so, by id."""
    return {turn.job.id: turn.reason for turn in facts.turns if turn.reason and not turn.refusal}


def _decide_preparing(job: Job, facts: Facts) -> Decision | None:
    submission, is_wanted = facts.preparations[job.id], preparation.is_wanted(job)
    match submission.run:
        case Run.UNKNOWN if is_wanted and job.text_done is None:
            return Decision(job, Action.SUBMIT_TEXT)
        case Run.UNKNOWN | Run.ENDED:
            return Decision(job, Action.SETTLE_TEXT, reason=submission.end, submission=submission)
        case Run.UNCLEAR:
            return None
    waited = facts.waited.get(job.preparation_id, timedelta())
    ends_itself = job.text_state is TextState.REFUSED and waited < LEAST_GRACE
    return None if is_wanted or ends_itself else Decision(job, Action.STOP_TEXT)


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
