"""What a worker exchanges with the others in a step, collective by collective."""

from dataclasses import dataclass
from typing import Self

from workers.contract.spec.phase import Phase

from .attempt import FP32_BYTES, Attempt

FP64_BYTES = INT64_BYTES = 8
COUNTS = "counts"
"""Masked positions and pairs of the global batch, by which the losses are divided. The hosts add them up."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The collectives of one kind in a step."""

    collective: str
    """`all-gather`, `reduce-scatter` or `all-reduce`."""
    of: str
    """What is exchanged."""
    ranks: int
    """That take part."""
    calls: int | None
    """In a step; null where torch decides."""
    payload_bytes: int
    """In all calls of a step: of the tensors as a rank has them when they are whole."""
    wire_bytes: float
    """What each rank sends in these calls, and receives, where the ranks form a ring."""

    @classmethod
    def in_a_ring(cls, collective: str, of: str, ranks: int, calls: int | None, payload_bytes: int) -> Self:
        """Return the exchange with what each rank sends."""
        rounds = 2 if collective == "all-reduce" else 1
        return cls(collective, of, ranks, calls, payload_bytes, rounds * payload_bytes * (ranks - 1) / ranks)


def traffic(attempt: Attempt, phase: Phase) -> list[Exchange]:
    """Return what each worker exchanges in a step of a phase; nothing is exchanged by one worker."""
    found = [*_weights(attempt, phase), *_gradients(attempt, phase), *_norms(attempt), _counts(attempt)]
    return [each for each in found if each.ranks > 1]


def _weights(attempt: Attempt, phase: Phase) -> list[Exchange]:
    if attempt.stage == 0:
        return []
    times = 2 * attempt.micro_batches(phase) if attempt.stage == 3 else 1
    whole = attempt.parameters.shard(attempt.shards) * attempt.shards
    calls, payload = times * _together(attempt), times * whole * attempt.compute_bytes
    return [Exchange.in_a_ring("all-gather", "weights", attempt.shards, calls, payload)]


def _gradients(attempt: Attempt, phase: Phase) -> list[Exchange]:
    trained = attempt.parameters.trained()
    if attempt.stage == 0:
        return [Exchange.in_a_ring("all-reduce", "gradients", attempt.workers, None, trained.elements * FP32_BYTES)]
    times = attempt.micro_batches(phase) if attempt.stage >= 2 else 1
    shard_bytes = trained.shard(attempt.shards) * FP32_BYTES
    calls, payload = times * _together(attempt), times * shard_bytes * attempt.shards
    return [
        Exchange.in_a_ring("reduce-scatter", "gradients", attempt.shards, calls, payload),
        Exchange.in_a_ring("all-reduce", "gradients of the copies", attempt.replicas, _together(attempt), shard_bytes),
    ]


def _norms(attempt: Attempt) -> list[Exchange]:
    """Return what LAMB asks for: the norm of all gradients, and two sums for each tensor."""
    numbers = 1 + 2 * attempt.parameters.trained().tensors
    return [Exchange.in_a_ring("all-reduce", "norms", attempt.shards, 2, numbers * FP64_BYTES)]


def _counts(attempt: Attempt) -> Exchange:
    return Exchange.in_a_ring("all-reduce", COUNTS, attempt.workers, 1, 2 * INT64_BYTES)


def _together(attempt: Attempt) -> int:
    """Count what FSDP2 gathers and reduces: each layer, and all the rest."""
    return attempt.parameters.layers + 1
