"""Why a job does not fit into the memory of its workers, and which settings would make it fit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.contract.assignments import set_fields
from workers.contract.documents import parse_spec
from workers.contract.spec.job import JobSpec
from workers.contract.spec.parallel import MAX_WORKERS
from workers.contract.spec.phase import Phase

from .attempt import Attempt
from .memory import Memory, fullest

Settings = dict[str, Any]
"""Fields of a specification, as `--set` names them, and their values."""
USABLE = 0.9
"""The part of a device's memory that tensors may take; the rest is for the process, the driver and the allocator."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """Settings with which the job would fit."""

    settings: dict[str, Any]
    """Fields of the specification and their values."""
    total_bytes: int
    """What a worker then holds at the fullest moment."""


def largest(attempt: Attempt) -> Memory:
    """Return the memory of a worker at the fullest moment of all phases."""
    return max((fullest(attempt, phase) for phase in attempt.spec.phases), key=lambda memory: memory.total)


def fits(attempt: Attempt, memory_bytes: int) -> bool:
    """Tell whether a worker's tensors fit into a device's memory."""
    return largest(attempt).total <= USABLE * memory_bytes


def sizes_that_divide(spec: JobSpec) -> list[int]:
    """Return every number of workers over which the batches divide, whatever range the job allows."""
    counts = (phase.global_batch_size // phase.micro_batch_size for phase in spec.phases)
    most, replicate = math.gcd(*counts), spec.parallel.replicate
    return [size for size in range(replicate, min(most, MAX_WORKERS) + 1, replicate) if most % size == 0]


def remedies(attempt: Attempt, memory_bytes: int) -> list[Remedy]:
    """Return single changes that make a job fit, or one of several together where none is enough; perhaps nothing."""
    singles = (_least(attempt, choices, memory_bytes) for choices in _choices(attempt, memory_bytes))
    return [each for each in singles if each] or [*filter(None, [_together(attempt, memory_bytes)])]


def _choices(attempt: Attempt, memory_bytes: int) -> list[list[Settings]]:
    """Return the kinds of change, each with its least step first."""
    smaller = _smaller_micro_batches(attempt, memory_bytes)
    return [
        [] if smaller is None else [smaller],
        [] if attempt.checkpointing else [{"execution.activation_checkpointing": True}],
        [{"parallel.zero_stage": stage} for stage in range(attempt.stage + 1, 4)],
        [{"parallel.workers": size} for size in _larger(attempt)],
        [{"optimizer.moments": kind} for kind in _narrower(attempt)],
    ]


def _least(attempt: Attempt, choices: Sequence[Settings], memory_bytes: int) -> Remedy | None:
    for settings in choices:
        changed = _changed(attempt, settings)
        if fits(changed, memory_bytes):
            return Remedy(settings, largest(changed).total)
    return None


def _together(attempt: Attempt, memory_bytes: int) -> Remedy | None:
    """Return everything that lowers memory at once, on as few workers more as that takes."""
    settings: Settings = {"execution.activation_checkpointing": True, "parallel.zero_stage": 3}
    for size in [attempt.workers, *_larger(replace(attempt, stage=3))]:
        more = {"parallel.workers": size} if size > attempt.workers else {}
        smaller = _smaller_micro_batches(_changed(attempt, settings | more), memory_bytes)
        if smaller is not None:
            all_of_them = settings | more | smaller
            return Remedy(all_of_them, largest(_changed(attempt, all_of_them)).total)
    return None


def _smaller_micro_batches(attempt: Attempt, memory_bytes: int) -> Settings | None:
    """Return the largest micro-batches that fit, for the phases that do not; None where not even one row does."""
    settings: Settings = {}
    for number, phase in enumerate(attempt.spec.phases):
        rows = phase.global_batch_size // attempt.workers
        sizes = (size for size in range(phase.micro_batch_size, 0, -1) if rows % size == 0)
        fitting = (size for size in sizes if _fits_with(attempt, phase, size, memory_bytes))
        size = next(fitting, None)
        if size is None:
            return None
        if size < phase.micro_batch_size:
            settings[f"phases[{number}].micro_batch_size"] = size
    return settings


def _fits_with(attempt: Attempt, phase: Phase, micro_batch_size: int, memory_bytes: int) -> bool:
    smaller = phase.model_copy(update={"micro_batch_size": micro_batch_size})
    return fullest(attempt, smaller).total <= USABLE * memory_bytes


def _larger(attempt: Attempt) -> list[int]:
    return [] if attempt.stage == 0 else [each for each in sizes_that_divide(attempt.spec) if each > attempt.workers]


def _narrower(attempt: Attempt) -> Sequence[str]:
    kinds = ("full", "bfloat16", "8bit")
    return kinds[kinds.index(attempt.spec.optimizer.moments) + 1 :]


def _changed(attempt: Attempt, settings: Settings) -> Attempt:
    spec = parse_spec(set_fields(attempt.spec.model_dump(mode="json"), settings))
    stage = settings.get("parallel.zero_stage", attempt.stage)
    workers = settings.get("parallel.workers", attempt.workers)
    return replace(attempt, spec=spec, workers=workers, stage=stage)
