"""`parallel`: workers, their processors, and how the model is sharded over them."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from workers.contract.problems import fault

from .strict import Count, Positive, Strict

MAX_WORKERS = 65_536


class WorkerRange(Strict):
    """Fewest and most workers that the job may run on."""

    min: Positive
    """Fewest workers."""
    max: Annotated[int, Field(ge=1, le=MAX_WORKERS)]
    """Most workers."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.min > self.max:
            raise fault(f"min {self.min} is more than max {self.max}", "exchange the two numbers")
        return self


class Parallel(Strict):
    """How the job is spread over workers."""

    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"
    """0: replicas (DDP). 1, 2, 3: optimizer state, also gradients, also parameters sharded (FSDP2). `auto`: of 1, 2 and
    3 the one with the least traffic that fits into memory."""
    workers: int | WorkerRange = 1
    """A number of workers, or a range: the largest number in it that fits and divides every batch."""
    gpus_per_worker: Count = 0
    """GPUs reserved for a worker; with 0 it trains on the CPU."""
    cpus_per_worker: Positive = 1
    """Processors reserved for a worker, and threads that torch uses in it on a CPU."""
    replicate: Positive = 1
    """Copies of the sharded model (HSDP): each group of workers / replicate workers holds one. At stage 0 nothing is
    sharded, and each worker holds a copy."""

    @field_validator("workers")
    @classmethod
    def _is_positive(cls, workers: int | WorkerRange) -> int | WorkerRange:
        if isinstance(workers, int) and not 1 <= workers <= MAX_WORKERS:
            raise fault(f"a job has 1 to {MAX_WORKERS} workers", "write for example 2, or {min: 2, max: 8}")
        return workers

    @property
    def range(self) -> WorkerRange:
        """Fewest and most workers, also where one number was given."""
        return (
            self.workers if isinstance(self.workers, WorkerRange) else WorkerRange(min=self.workers, max=self.workers)
        )
