"""What a run keeps on disk."""

from .attempt import FP32_BYTES, Attempt
from .memory import MOMENT_BYTES


def checkpoint_bytes(attempt: Attempt) -> int:
    """Return the size of the tensors of a checkpoint, which is the same for any number of workers and stage.

    Torch adds about 2 kB for each tensor.
    """
    whole, trained, vocabulary = attempt.parameters, attempt.parameters.trained(), attempt.vocab_size
    # The embedding and the bias of the vocabulary are there under both of their names.
    twice = vocabulary * attempt.spec.model.architecture.hidden + vocabulary
    moments = attempt.spec.optimizer.moments
    of_moment = FP32_BYTES if moments == "8bit" else MOMENT_BYTES[moments]  # codes are saved as what they stand for
    steps = trained.tensors * FP32_BYTES
    return (whole.elements + twice) * FP32_BYTES + 2 * trained.elements * of_moment + steps
