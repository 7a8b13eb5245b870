"""One way to run a job: on how many workers, at which ZeRO stage, in which precision."""

from dataclasses import dataclass

from workers.contract.spec.job import JobSpec
from workers.contract.spec.phase import Phase

from .parameters import Parameters, parameters

FP32_BYTES, BF16_BYTES = 4, 2


@dataclass(frozen=True, slots=True)
class Attempt:
    """What memory and traffic depend on."""

    spec: JobSpec
    vocab_size: int
    workers: int
    stage: int
    """ZeRO stage, 0 to 3."""
    item_bytes: int | None = None
    """Of an element in the precision of forward and backward pass; None where only the specification is known."""

    @property
    def parameters(self) -> Parameters:
        """The tensors of the model."""
        return parameters(self.spec, self.vocab_size)

    @property
    def replicas(self) -> int:
        """Copies of the sharded model."""
        return 1 if self.stage == 0 else self.spec.parallel.replicate

    @property
    def shards(self) -> int:
        """Workers over which a copy is sharded; 1 where nothing is."""
        return 1 if self.stage == 0 else self.workers // self.replicas

    @property
    def checkpointing(self) -> bool:
        """Whether the activations of a layer are computed again in the backward pass instead of kept."""
        return self.spec.execution.activation_checkpointing

    @property
    def on_gpu(self) -> bool:
        """Whether workers compute on GPUs."""
        return self.spec.parallel.gpus_per_worker > 0

    @property
    def compute_bytes(self) -> int:
        """Of an element in the precision of forward and backward pass; a GPU that is not known has bf16."""
        if self.item_bytes is not None:
            return self.item_bytes
        wanted = self.spec.precision.compute
        return BF16_BYTES if wanted == "bf16" or (wanted == "auto" and self.on_gpu) else FP32_BYTES

    @property
    def autocasts(self) -> bool:
        """Whether bf16 is torch's autocast, as at stage 0; FSDP2 computes whole layers in it."""
        return self.stage == 0 and self.compute_bytes < FP32_BYTES

    @property
    def stream_bytes(self) -> int:
        """Of an element of what a layer hands to the next: norms and sums stay float32 under autocast."""
        return FP32_BYTES if self.autocasts else self.compute_bytes

    def micro_batches(self, phase: Phase) -> int:
        """Forward passes of a worker in a step, over which gradients are accumulated."""
        return phase.global_batch_size // phase.micro_batch_size // self.workers
