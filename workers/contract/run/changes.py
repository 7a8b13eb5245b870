"""What may change in a specification between two attempts of one run: only what does not change the result."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workers.contract.problems import Problem, SpecError
from workers.contract.spec.job import JobSpec
from workers.contract.spec.phase import Phase

# Compiled code rounds otherwise and draws another dropout. It is the same training all the same, and a run whose
# compiler fails on a new machine must be able to go on without it. How the model is sharded decides in which order sums
# are rounded, as the number of workers does.
_FREE = re.compile(
    r"(labels|priority|execution|evaluation|checkpoint|export|failures)\b.*"
    r"|parallel\.(workers|cpus_per_worker|zero_stage|replicate)\b.*"
)
_FIXED_IN_A_BRANCH = re.compile(r"(seed|model|data)\b.*")
_ROWS_OF_A_PHASE = re.compile(r"phases\[(\d+)\](?:\.(seq_len|global_batch_size|steps))?")
_SETTING_OF_A_PHASE = re.compile(r"phases\[(\d+)\]\.(?!steps$)")
_OF_A_PHASE = re.compile(r"phases\[(\d+)\](?:\.(steps|warmup))?")


@dataclass(frozen=True, slots=True)
class Change:
    """A field that differs; None where it is absent."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """Read as a part of a message."""
        return f"{self.field}: {self.before!r} → {self.after!r}"


def allowed_changes(before: JobSpec, after: JobSpec, done: int) -> list[Change]:
    """Return what differs, if a run that has taken `done` steps may go on with it.

    Labels, execution, evaluation, checkpoints, the export, restarts, the numbers of workers and processors and how the
    model is sharded are free. Phases may be added at the end. A phase of constant rate may get more steps until the
    phase after it begins, unless a step that was taken would have another rate.

    Raises:
        SpecError: with a problem for each field that may not change.
    """
    changes = list(_differences("", before.model_dump(mode="json"), after.model_dump(mode="json")))
    refused = [change for change in changes if not _is_allowed(change, before, after, done)]
    if refused:
        raise SpecError([_problem(change) for change in refused])
    return changes


def check_branch(before: JobSpec, after: JobSpec, done: int) -> None:
    """Check that a branch with the specification `after` can go on after `done` steps of a run with that of `before`.

    What decides the weights' meaning and the rows of the text stays: seed, model, data, and of the phases that have
    begun the sequence length, the global batch and the steps that were taken. All else may be set, but for what has
    no effect because its phase is over.

    Raises:
        SpecError: with a problem for each field that cannot be set.
    """
    changes = list(_differences("", before.model_dump(mode="json"), after.model_dump(mode="json")))
    if refused := [change for change in changes if not _can_be_set(change, before, after, done)]:
        raise SpecError([_problem_of_a_branch(change, done) for change in refused])
    if late := [change for change in changes if _is_of_a_phase_that_is_over(change, after, done)]:
        raise SpecError([_without_effect(change, done) for change in late])
    if done >= after.total_steps:
        problem = f"the job has {after.total_steps:,} steps, so that none is left"
        remedy = "name an earlier step, or give the last phase more steps, or add a phase"
        raise SpecError([Problem("start_from.step", str(done), problem, remedy)])


def _can_be_set(change: Change, before: JobSpec, after: JobSpec, done: int) -> bool:
    if _FIXED_IN_A_BRANCH.fullmatch(change.field):
        return False
    phase = _ROWS_OF_A_PHASE.fullmatch(change.field)
    if phase is None:
        return True
    number = int(phase[1])
    taken = done - sum(earlier.steps for earlier in before.phases[:number])
    if taken <= 0:
        return True
    return phase[2] == "steps" and taken <= before.phases[number].steps and taken <= after.phases[number].steps


def _problem_of_a_branch(change: Change, done: int) -> Problem:
    problem = f"cannot be set in a branch after step {done:,}: it was {change.before!r} until then"
    return Problem(change.field, repr(change.after), problem, "leave it as it was, or begin a run of its own")


def _is_of_a_phase_that_is_over(change: Change, after: JobSpec, done: int) -> bool:
    setting = _SETTING_OF_A_PHASE.match(change.field)
    return setting is not None and sum(phase.steps for phase in after.phases[: int(setting[1]) + 1]) <= done


def _without_effect(change: Change, done: int) -> Problem:
    problem = f"has no effect in a branch after step {done:,}: this phase is over"
    return Problem(change.field, repr(change.after), problem, "set it in a phase that has steps left, or not at all")


def _differences(field: str, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before | after:
            yield from _differences(f"{field}.{key}" if field else str(key), before.get(key), after.get(key))
    elif field == "phases":
        for number in range(max(len(before), len(after))):
            yield from _differences(f"phases[{number}]", *(_at(phases, number) for phases in (before, after)))
    elif before != after:
        yield Change(field, before, after)


def _at(phases: list[Any], number: int) -> Any:
    return phases[number] if number < len(phases) else None


def _is_allowed(change: Change, before: JobSpec, after: JobSpec, done: int) -> bool:
    if _FREE.fullmatch(change.field):
        return True
    phase = _OF_A_PHASE.fullmatch(change.field)
    if phase is None:
        return False
    number = int(phase[1])
    if phase[2] is None:
        return change.before is None
    taken = done - sum(earlier.steps for earlier in before.phases[:number])
    return _is_longer(before.phases[number], after.phases[number], taken)


def _is_longer(before: Phase, after: Phase, taken: int) -> bool:
    """Return whether a phase only got more steps, and its first `taken` steps would compute the same again."""
    is_longer = before.decay.kind == after.decay.kind == "constant" and after.steps > before.steps
    same_warmup = math.isclose(before.steps * before.warmup_share, after.steps * after.warmup_share)
    return is_longer and taken <= before.steps and (taken <= 0 or same_warmup)


def _problem(change: Change) -> Problem:
    remedy = f"write {change.before!r} as before, or begin another run"
    return Problem(change.field, repr(change.after), f"was {change.before!r} in this run, and would change it", remedy)
