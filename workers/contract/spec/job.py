"""The job specification: the one document that the REST API, the command line and the workers share."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from workers.contract.problems import counted, fault

from .checkpoint import Checkpoint
from .data import Data
from .evaluation import Evaluation
from .export import Export
from .failures import Failures
from .model import Model
from .optimizer import Optimizer
from .parallel import Parallel
from .phase import Phase
from .precision import Precision
from .start_from import StartFrom
from .strict import Strict


class JobSpec(Strict):
    """A BERT pre-training job."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Letters, digits, dots, underscores and hyphens; the first one is a letter or a digit."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Text by which jobs can be found, such as {team: nlp}."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides the first weights, the order of the samples and what is masked."""
    model: Model = Model(preset="bert-base-uncased")
    """The sizes of the BERT."""
    data: Data
    """Files of text, the vocabulary, and what is masked."""
    phases: tuple[Phase, ...] = Field(min_length=1)
    """Stretches of training, run in this order."""
    optimizer: Optimizer = Optimizer()
    """LAMB or AdamW and their settings."""
    parallel: Parallel = Parallel()
    """Number of workers, their processors, and how the model is sharded."""
    precision: Precision = Precision()
    """Number formats of weights and of arithmetic."""
    evaluation: Evaluation = Evaluation()
    """How often the model is judged by text that it does not learn, where `data.validation` names some."""
    checkpoint: Checkpoint = Checkpoint()
    """How often checkpoints are written, and how many stay."""
    export: Export = Export()
    """Whether the finished model is written in the form that `transformers` loads."""
    failures: Failures = Failures()
    """How often the job is started again after a worker or a machine was lost."""
    start_from: StartFrom | None = None
    """The checkpoint of another run that this one goes on from, until it has one of its own."""

    @model_validator(mode="before")
    @classmethod
    def _takes_the_vocabulary_of_its_first_weights(cls, document: Any) -> Any:
        match document:
            case {"model": {"init_from": str(start)}, "data": dict(data)} if "vocab" not in data:
                return document | {"data": data | {"vocab": start}}
        return document

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for number, phase in enumerate(self.phases):
            if phase.seq_len > self.model.max_positions:
                raise fault(
                    f"is longer than model.max_positions = {self.model.max_positions} tokens",
                    "lower seq_len or raise model.max_positions",
                    f"phases[{number}].seq_len",
                    phase.seq_len,
                )
        if self.data.validation is None and self.evaluation != Evaluation():
            raise fault(
                "has no text to evaluate on",
                "write data.validation: files, or a share of the documents such as 0.01; or leave evaluation out",
                "evaluation",
                self.evaluation.model_dump(),
            )
        if not self.world_sizes():
            raise self._no_world_size()
        return self

    def world_sizes(self) -> list[int]:
        """Numbers of workers, ascending, over which every phase's global batch divides into whole micro-batches."""
        workers = self.parallel.range
        most = min(phase.global_batch_size // phase.micro_batch_size for phase in self.phases)
        return [size for size in range(workers.min, min(workers.max, most) + 1) if self._divides(size)]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def _divides(self, world_size: int) -> bool:
        whole = all(phase.global_batch_size % (phase.micro_batch_size * world_size) == 0 for phase in self.phases)
        return whole and world_size % self.parallel.replicate == 0

    def _no_world_size(self) -> PydanticCustomError:
        workers = self.parallel.range
        sizes = range(workers.min, workers.max + 1)
        for number, phase in enumerate(self.phases):
            if all(phase.global_batch_size % (phase.micro_batch_size * size) for size in sizes):
                most = counted(workers.max, "worker")
                return fault(
                    f"does not divide into whole micro-batches of {phase.micro_batch_size} on {most}",
                    f"write a multiple of {phase.micro_batch_size * workers.max}, or change micro_batch_size",
                    f"phases[{number}].global_batch_size",
                    phase.global_batch_size,
                )
        return fault(
            f"{counted(workers.max, 'worker')} cannot form {self.parallel.replicate} groups of the same size",
            "choose parallel.workers as a multiple of parallel.replicate",
            "parallel.replicate",
            self.parallel.replicate,
        )
