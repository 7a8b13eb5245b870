"""What a job will take, before it is launched: steps, memory, traffic, disk and hours."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from workers.contract.manifests import ShardsManifest
from workers.contract.spec.job import JobSpec
from workers.contract.spec.phase import Phase

from . import text
from .attempt import FP32_BYTES, Attempt
from .disk import checkpoint_bytes
from .fit import USABLE, Remedy, fits, largest, remedies, sizes_that_divide
from .memory import Memory, fullest
from .rate import Rate
from .size import check_size
from .stage import zero_stage
from .traffic import Exchange, traffic

STAGES = range(4)


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """What a phase takes."""

    seq_len: int
    global_batch_size: int
    micro_batch_size: int
    micro_batches: int
    """Of a worker in a step, over which gradients are accumulated."""
    steps: int
    rows: int
    tokens: int
    """Positions of all rows, padding among them."""
    epochs: float | None
    """How often the text is gone through; null where it is not prepared on this machine."""
    hours: float | None
    """null where no rate is known."""
    memory: Memory
    memory_bytes: int
    exchanges: list[Exchange]
    """Of a worker in a step."""
    sent_bytes: int
    """By a worker in a step."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a worker holds and sends at a ZeRO stage."""

    stage: int
    memory: Memory
    """At the fullest moment of all phases."""
    memory_bytes: int
    sent_bytes: list[int]
    """In a step of each phase."""
    fits: bool | None
    """Into the memory that was given; null where none was."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job takes on one number of workers."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    name: str
    parameters: int
    vocab_size: int
    workers: int
    replicate: int
    sizes: list[int]
    """All numbers of workers over which the batches divide."""
    allowed: list[int]
    """Those of them that `parallel.workers` allows."""
    stage: int
    compute: str
    """`fp32` or `bf16`."""
    activation_checkpointing: bool
    phases: list[PhasePlan]
    stages: list[StagePlan]
    """All stages, the job's among them."""
    checkpoint_bytes: int
    checkpoints_bytes: int
    """Of as many as are kept, and the one that is written before an old one is removed."""
    tokens: int
    epochs: float | None
    hours: float | None
    memory_bytes: int | None
    """Of a worker's device, as it was given."""
    fits: bool | None
    remedies: list[Remedy]
    """What would make the job fit, where it does not."""


def plan(
    spec: JobSpec,
    *,
    workers: int | None = None,
    memory_bytes: int | None = None,
    prepared: ShardsManifest | None = None,
    rates: Mapping[int, Rate] | Rate | None = None,
) -> Plan:
    """Plan a job.

    Args:
        spec: the job.
        workers: on how many it runs; by default the most that it allows.
        memory_bytes: of the device of each worker.
        prepared: its text, where that is prepared.
        rates: tokens a second, also by the tokens of a row.

    Raises:
        SpecError: the job cannot run on so many workers.
    """
    workers = max(spec.world_sizes()) if workers is None else workers
    check_size(spec, workers)
    vocab_size = vocabulary_size(spec, prepared)
    attempt = Attempt(spec, vocab_size, workers, _stage_of(spec, vocab_size, workers, memory_bytes))
    phases = [_phase(attempt, phase, prepared, rates) for phase in spec.phases]
    does_fit = None if memory_bytes is None else fits(attempt, memory_bytes)
    size = checkpoint_bytes(attempt)
    return Plan(
        name=spec.name,
        parameters=attempt.parameters.elements,
        vocab_size=vocab_size,
        workers=workers,
        replicate=spec.parallel.replicate,
        sizes=sizes_that_divide(spec),
        allowed=spec.world_sizes(),
        stage=attempt.stage,
        compute="fp32" if attempt.compute_bytes == FP32_BYTES else "bf16",
        activation_checkpointing=attempt.checkpointing,
        phases=phases,
        stages=[_stage(Attempt(spec, vocab_size, workers, stage), memory_bytes) for stage in STAGES],
        checkpoint_bytes=size,
        checkpoints_bytes=(spec.checkpoint.keep + 1) * size,
        tokens=sum(phase.tokens for phase in phases),
        epochs=_sum([phase.epochs for phase in phases]),
        hours=_sum([phase.hours for phase in phases]),
        memory_bytes=memory_bytes,
        fits=does_fit,
        remedies=remedies(attempt, memory_bytes) if memory_bytes and does_fit is False else [],
    )


def _stage_of(spec: JobSpec, vocab_size: int, workers: int, memory_bytes: int | None) -> int:
    """Return the stage that the workers will choose; where their memory is not known, it is enough for any."""
    compute_bytes = Attempt(spec, vocab_size, workers, 1).compute_bytes
    return zero_stage(spec, vocab_size, workers, sys.maxsize if memory_bytes is None else memory_bytes, compute_bytes)


def vocabulary_size(spec: JobSpec, prepared: ShardsManifest | None) -> int:
    """Return the entries of a job's vocabulary; BERT's 30,522 for a file that is not prepared on this machine."""
    if prepared is not None:
        return prepared.vocab_size
    return spec.data.vocab if isinstance(spec.data.vocab, int) else BERT_VOCABULARY


BERT_VOCABULARY = 30_522


def _phase(
    attempt: Attempt, phase: Phase, prepared: ShardsManifest | None, rates: Mapping[int, Rate] | Rate | None
) -> PhasePlan:
    exchanges, memory, rows = traffic(attempt, phase), fullest(attempt, phase), phase.steps * phase.global_batch_size
    rate = rates.get(phase.seq_len) if isinstance(rates, Mapping) else rates
    tokens = rows * phase.seq_len
    return PhasePlan(
        seq_len=phase.seq_len,
        global_batch_size=phase.global_batch_size,
        micro_batch_size=phase.micro_batch_size,
        micro_batches=attempt.micro_batches(phase),
        steps=phase.steps,
        rows=rows,
        tokens=tokens,
        epochs=None if prepared is None else text.epochs(phase, attempt.spec.data, prepared),
        hours=None if rate is None else tokens / rate.on(attempt.workers) / 3600,
        memory=memory,
        memory_bytes=memory.total,
        exchanges=exchanges,
        sent_bytes=_sent(exchanges),
    )


def _stage(attempt: Attempt, memory_bytes: int | None) -> StagePlan:
    memory = largest(attempt)
    return StagePlan(
        stage=attempt.stage,
        memory=memory,
        memory_bytes=memory.total,
        sent_bytes=[_sent(traffic(attempt, phase)) for phase in attempt.spec.phases],
        fits=None if memory_bytes is None else memory.total <= USABLE * memory_bytes,
    )


def _sent(exchanges: list[Exchange]) -> int:
    return round(sum(each.wire_bytes for each in exchanges))


def _sum(numbers: list[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
