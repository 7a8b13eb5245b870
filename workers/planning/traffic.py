"""What a worker exchanges with the others in a step, collective by collective."""

from dataclasses import dataclass, field

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
    """In a step; None where torch decides."""
    payload_bytes: int
    """In all calls of a step: of the tensors as a rank has them when they are whole."""
    wire_bytes: float = field(init=False)
    """What each rank sends in these calls, and receives, where the ranks form a ring."""

    def __post_init__(self) -> None:
        rounds = 2 if self.collective == "all-reduce" else 1
        object.__setattr__(self, "wire_bytes", rounds * self.payload_bytes * (self.ranks - 1) / self.ranks)


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
    return [Exchange("all-gather", "weights", attempt.shards, calls, payload)]


def _gradients(attempt: Attempt, phase: Phase) -> list[Exchange]:
    trained = attempt.parameters.trained()
    if attempt.stage == 0:
        return [Exchange("all-reduce", "gradients", attempt.workers, None, trained.elements * FP32_BYTES)]
    times = attempt.micro_batches(phase) if attempt.stage >= 2 else 1
    shard_bytes = trained.shard(attempt.shards) * FP32_BYTES
    calls, payload = times * _together(attempt), times * shard_bytes * attempt.shards
    return [
        Exchange("reduce-scatter", "gradients", attempt.shards, calls, payload),
        Exchange("all-reduce", "gradients of the copies", attempt.replicas, _together(attempt), shard_bytes),
    ]


def _norms(attempt: Attempt) -> list[Exchange]:
    """Return what LAMB asks for: the norm of all gradients, and two sums for each tensor."""
    numbers = 1 + 2 * attempt.parameters.trained().tensors
    return [Exchange("all-reduce", "norms", attempt.shards, 2, numbers * FP64_BYTES)]


def _counts(attempt: Attempt) -> Exchange:
    return Exchange("all-reduce", COUNTS, attempt.workers, 1, 2 * INT64_BYTES)


def _together(attempt: Attempt) -> int:
    """Count what FSDP2 gathers and reduces: each layer, and all the rest."""
    return attempt.parameters.layers + 1
