"""The ZeRO stage of a job that leaves it open: the one with the least traffic that fits into memory."""

from workers.contract.spec.job import JobSpec

from .attempt import Attempt
from .fit import fits


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

    On CPUs, gloo computes a reduce-scatter as an all-reduce, so there stage 1 sends half as much again as stage 0. It
    is taken there too: whether that or what each worker saves in the optimizer weighs more was not measured.

    Where not even stage 3 fits, it is taken all the same: what is planned may be more than what is needed.

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
    attempts = (Attempt(spec, vocab_size, workers, stage, compute_bytes) for stage in (1, 2))
    return next((attempt.stage for attempt in attempts if fits(attempt, memory_bytes)), 3)
