"""The job specification: the one document that the REST API, the command line and the workers share."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from workers.contract.problems import counted, fault

from .checkpoint import Checkpoint
from .data import Data
from .evaluation import Evaluation
from .execution import Execution
from .export import Export
from .failures import Failures
from .model import Model
from .optimizer import Optimizer
from .parallel import MAX_WORKERS, Parallel
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
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Of the jobs that wait for processors, those with a higher one start first."""
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
    execution: Execution = Execution()
    """How a step is computed, which changes its speed and its memory, not its result."""
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
        return self._sizes_that_divide(workers.min, workers.max)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def _sizes_that_divide(self, least: int, most: int, phases: Sequence[Phase] | None = None) -> list[int]:
        phases = self.phases if phases is None else phases
        if any(phase.global_batch_size % phase.micro_batch_size for phase in phases):
            return []
        micro_batches = math.gcd(*(phase.global_batch_size // phase.micro_batch_size for phase in phases))
        sizes = range(least, min(most, micro_batches or most) + 1)
        return [size for size in sizes if micro_batches % size == 0 and size % self.parallel.replicate == 0]

    def _no_world_size(self) -> PydanticCustomError:
        for number, phase in enumerate(self.phases):
            if phase.global_batch_size % phase.micro_batch_size:
                return self._broken_micro_batches(number, phase)
        workers, replicate = self.parallel.range, self.parallel.replicate
        counts = sorted({phase.global_batch_size // phase.micro_batch_size for phase in self.phases})
        batches = " or ".join(f"{count:,}" for count in counts) + " micro-batch" + ("" if counts == [1] else "es")
        replicas = f" with parallel.replicate = {replicate}" if replicate > 1 else ""
        many = f"{workers.min:,} to " * (workers.min < workers.max) + counted(workers.max, "worker")
        problem = f"a step of {batches} does not divide over {many}{replicas}"
        fewer, more = self._sizes_that_divide(1, workers.min), self._sizes_that_divide(workers.max, MAX_WORKERS)
        if not (nearest := [*fewer[-1:], *more[:1]]):
            remedy = "lower parallel.replicate, or make the micro-batches smaller"
            return fault(problem, remedy, "parallel.replicate", replicate)
        remedy = f"write {_either(nearest)}, the nearest that would work, or change the batches"
        return fault(problem, remedy, "parallel.workers", self.parallel.workers)

    def _broken_micro_batches(self, number: int, phase: Phase) -> PydanticCustomError:
        batch, micro, workers = phase.global_batch_size, phase.micro_batch_size, self.parallel.range
        others = [each for each in self.phases if each.global_batch_size % each.micro_batch_size == 0]
        steps = [micro * size for size in self._sizes_that_divide(workers.min, workers.max, others) or [workers.min]]
        below, above = max(batch // each * each for each in steps), min((batch // each + 1) * each for each in steps)
        return fault(
            f"does not divide into whole micro-batches of {micro:,}",
            f"write {_either([each for each in (below, above) if each])}, or change micro_batch_size",
            f"phases[{number}].global_batch_size",
            batch,
        )


def _either(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))  # as an author can write them, without a comma
