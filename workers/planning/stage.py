"""The ZeRO stage of a job that leaves it open: the one with the least traffic that fits into memory."""

from typing import NamedTuple

from workers.contract.spec.job import JobSpec

FP32_BYTES = 4
MOMENTS_BYTES = {"full": 8.0, "bfloat16": 4.0, "8bit": 2.03}
"""Of both moments of a parameter."""
SHARE_OF_STATES = 0.5
"""The part of a device's memory that weights, gradients and moments may take. The rest is for activations, for the
buffers of collectives and for the allocator. Activations depend on the micro-batch, which an author can lower, and on
`execution.activation_checkpointing`."""


class Parameters(NamedTuple):
    """How many parameters are gathered and reduced together."""

    layers: int
    in_a_layer: int
    outside: int
    """Embeddings, pooler and heads; the projection onto the vocabulary is the embedding and counts once."""

    @property
    def all(self) -> int:
        """Parameters of the whole model."""
        return self.layers * self.in_a_layer + self.outside


def parameters(spec: JobSpec, vocab_size: int) -> Parameters:
    """Count the parameters of a job's model."""
    sizes = spec.model.architecture
    hidden, inner = sizes.hidden, sizes.intermediate
    norm, square = 2 * hidden, hidden * hidden + hidden
    in_a_layer = 4 * square + norm + (hidden * inner + inner) + (inner * hidden + hidden) + norm
    embeddings = (vocab_size + spec.model.max_positions + 2) * hidden + norm  # 2 segments
    heads = square + norm + vocab_size + (2 * hidden + 2)
    return Parameters(sizes.layers, in_a_layer, embeddings + square + heads)  # the pooler is a square


def states_bytes(spec: JobSpec, stage: int, vocab_size: int, workers: int, compute_bytes: int) -> float:
    """Return the bytes of weights, gradients and moments of one worker at a stage, without rounding to whole rows.

    Args:
        spec: the job.
        stage: ZeRO stage, 0 to 3.
        vocab_size: entries of the vocabulary.
        workers: of the attempt; with `parallel.replicate`, shards are spread over workers / replicate of them.
        compute_bytes: of a parameter in the precision that is computed in: 2 in bf16, 4 in fp32.
    """
    count = parameters(spec, vocab_size)
    moments = MOMENTS_BYTES[spec.optimizer.moments]
    if stage == 0:
        in_compute = compute_bytes if compute_bytes < FP32_BYTES else 0  # autocast keeps narrow copies in a forward
        return count.all * (FP32_BYTES + FP32_BYTES + moments + in_compute)
    shard = count.all * (FP32_BYTES + FP32_BYTES + moments) / (workers // spec.parallel.replicate)
    gathered = count.all if stage < 3 else count.outside + 2 * count.in_a_layer  # one is computed, the next is coming
    accumulated = count.all if stage == 1 else 2 * max(count.in_a_layer, count.outside)
    return shard + gathered * compute_bytes + accumulated * FP32_BYTES


def zero_stage(spec: JobSpec, vocab_size: int, workers: int, memory_bytes: int, compute_bytes: int) -> int:
    """Return the ZeRO stage of an attempt: the job's own, or for `auto` the least of 1, 2 and 3 that fits.

    A step of A micro-batches and N parameters sends, for each worker and but for the ring's (W - 1) / W:

    * stage 0 (DDP) an all-reduce of the gradients, 2 x 4N bytes, once;
    * stage 1 a reduce-scatter of the gradients, 4N, and a gathering of the weights, 4N or in bf16 2N, once;
    * stage 2 the same reduce-scatter after every micro-batch, A x 4N, and one gathering;
    * stage 3 that reduce-scatter, and two gatherings in every micro-batch: A x (4N + 2 x 4N).

    So a lower stage never sends more than a higher one, and the first that fits is the one sought. 0 is never taken: 1
    sends as much in fp32 and less in bf16, keeps a shard of the moments instead of all, and each worker updates a shard
    instead of everything. DDP hides its whole all-reduce behind the backward pass, but stage 1 hides its two halves as
    well, one behind the backward pass and one behind the forward pass. One worker takes 1 too, where nothing is sent,
    so that a job computes in the same way on any number of workers: bf16 is autocast at stage 0, and whole layers in
    bf16 from stage 1 on.

    On CPUs, gloo computes a reduce-scatter as an all-reduce, so there stage 1 sends half as much again as stage 0. What
    each worker saves in the optimizer outweighs that.

    Where not even stage 3 leaves room for activations, it is taken all the same: they may be smaller than is assumed.

    Args:
        spec: the job.
        vocab_size: entries of the vocabulary.
        workers: of the attempt.
        memory_bytes: that the worker with the least memory can use.
        compute_bytes: of a parameter in the precision that is computed in: 2 in bf16, 4 in fp32.
    """
    wanted = spec.parallel.zero_stage
    if wanted != "auto":
        return wanted
    room = SHARE_OF_STATES * memory_bytes
    fitting = (stage for stage in (1, 2) if states_bytes(spec, stage, vocab_size, workers, compute_bytes) <= room)
    return next(fitting, 3)
