"""The memory of one worker in a step: what torch holds in tensors at the fullest moment.

What the process, the driver of a GPU and its allocator take beside tensors is not counted.
"""

from dataclasses import asdict, dataclass

from workers.contract.spec.phase import Phase

from .activations import activations
from .attempt import FP32_BYTES, Attempt

MOMENT_BYTES = {"full": 4, "bfloat16": 2, "8bit": 1}
"""Of each of the two moments of a parameter."""
BLOCK = 256
"""Elements of an 8-bit moment that share a scale of 4 bytes."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by what they hold, at one moment."""

    weights: int
    """The worker's part of the float32 weights."""
    gathered: int
    """Copies of weights for forward and backward pass, in the precision of these."""
    gradients: int
    moments: int
    activations: int
    """What the backward pass needs of the forward pass, and what both need for a moment."""

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(asdict(self).values())


def fullest(attempt: Attempt, phase: Phase) -> Memory:
    """Return the memory of a worker at the fullest moment of a phase's steps, but for the first of the run."""
    return max(_moments(attempt, phase), key=lambda memory: memory.total)


def _moments(attempt: Attempt, phase: Phase) -> list[Memory]:
    """Return what is held at each of the moments that may be the fullest."""
    held, before = activations(attempt, phase), _accumulated(attempt, phase)
    everything, outside = (_gathered(attempt, everything=which) for which in (True, False))
    # The projection onto the vocabulary is the embedding. Its gradient is there from the beginning of the backward pass
    # and waits for that of the embedding, to which it is added at the end, in a third tensor.
    table = attempt.vocab_size * attempt.spec.model.architecture.hidden * attempt.stream_bytes
    found = [
        _memory(attempt, everything, before, held.at_the_loss),
        _memory(attempt, everything, before + table, held.at_the_vocabulary),
        _memory(attempt, everything, before + table, held.at_the_last_layer),
        _memory(attempt, outside, _last_gradients(attempt, phase, table), held.at_the_embeddings),
    ]
    if attempt.stage > 0 and attempt.parameters.layers > 1:
        in_exchange = _layer_gradients(attempt) * FP32_BYTES
        found.append(_memory(attempt, everything, before + table + in_exchange, held.at_the_layer_before))
    if attempt.micro_batches(phase) > 1:
        until_the_last = outside if attempt.stage == 3 else everything
        found.append(_memory(attempt, until_the_last, before + 3 * table, held.at_the_embeddings))
    return found


def _memory(attempt: Attempt, gathered: int, gradients: int, activations: int) -> Memory:
    return Memory(_shard(attempt) * FP32_BYTES, gathered, gradients, moments_bytes(attempt), activations)


def moments_bytes(attempt: Attempt) -> int:
    """Return the size of a worker's moments; of a tensor with fewer rows than shards, the first workers have one."""
    of_each, kind = MOMENT_BYTES[attempt.spec.optimizer.moments], attempt.spec.optimizer.moments
    shards = [each.shard(attempt.shards) for each in attempt.parameters.trained().all()]
    scales = sum(-(-size // BLOCK) for size in shards) * FP32_BYTES if kind == "8bit" else 0
    return 2 * (sum(shards) * of_each + scales) + len(shards) * FP32_BYTES  # each has a count of steps


def _shard(attempt: Attempt) -> int:
    return attempt.parameters.shard(attempt.shards)


def _gathered(attempt: Attempt, *, everything: bool) -> int:
    """Return the size of the copies of weights at the last layer, or where only what is outside of layers is left."""
    whole, item = attempt.parameters, attempt.compute_bytes
    if attempt.stage == 0:  # what autocast has cast is given up with the layer that used it
        return whole.elements * item if attempt.autocasts and everything else 0
    at_once = whole.layers if attempt.stage < 3 else min(2, whole.layers)  # one is computed, and the next is coming
    return whole.with_layers(at_once if everything else 0).shard(attempt.shards) * attempt.shards * item


def _accumulated(attempt: Attempt, phase: Phase) -> int:
    """Return the size of the gradients that are there before a micro-batch, if it is not the first."""
    trained, is_only = attempt.parameters.trained(), attempt.micro_batches(phase) == 1
    if attempt.stage >= 2:
        return 0 if is_only else trained.shard(attempt.shards) * FP32_BYTES
    # DDP has buckets from the beginning, and gradients are parts of them.
    has_buckets = attempt.stage == 0 and attempt.workers > 1
    return 0 if is_only and not has_buckets else trained.elements * FP32_BYTES


def _layer_gradients(attempt: Attempt) -> int:
    """Count the trained parameters of a layer."""
    trained = attempt.parameters.trained()
    return trained.with_layers(1).elements - trained.with_layers(0).elements


def _last_gradients(attempt: Attempt, phase: Phase, table: int) -> int:
    """Return the size of the gradients at the end of the last backward pass, when the embedding's is added up."""
    trained, accumulates = attempt.parameters.trained(), attempt.micro_batches(phase) > 1
    if attempt.stage == 0:
        return trained.elements * FP32_BYTES + (3 if accumulates or attempt.workers > 1 else 2) * table
    layer, outside = (trained.with_layers(layers).shard(attempt.shards) for layers in (1, 0))
    there = trained.shard(attempt.shards) - (0 if accumulates and attempt.stage >= 2 else outside)
    in_reduction = (layer - outside) * attempt.shards
    keeps_whole = accumulates and attempt.stage == 1  # sums of gradients are float32, new ones have the precision
    item = FP32_BYTES if keeps_whole else attempt.compute_bytes
    whole = trained.with_layers(0).elements * item
    return (there + in_reduction) * FP32_BYTES + whole + (3 if keeps_whole else 2) * table
