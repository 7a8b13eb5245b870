"""The process group, and what ranks tell each other."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore

from .contract.spec.job import JobSpec

Value = TypeVar("Value")


@contextmanager
def process_group(spec: JobSpec) -> Iterator[None]:
    """Join the other workers as torchrun's environment says, or be the only one where it says nothing."""
    backend = "nccl" if spec.parallel.gpus_per_worker else "gloo"
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Return the number of workers."""
    return dist.get_world_size()


def rank() -> int:
    """Return this worker's number, from 0."""
    return dist.get_rank()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum `tensor` over all workers, in place."""
    dist.all_reduce(tensor)
    return tensor


def gather(value: Value) -> list[Value]:
    """Return every rank's value on every rank, in rank order."""
    values: list[Value | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value] # every rank has put its own in place


def gather_errors(error: str | None) -> list[str]:
    """Return what went wrong on any rank, in rank order."""
    return [each for each in gather(error) if each is not None]


def as_rank_0_says(value: Value) -> Value:
    """Return rank 0's value on every rank."""
    said = [value]
    dist.broadcast_object_list(said, src=0)
    return said[0]


def as_rank_0_does(work: Callable[[], Value]) -> Value:
    """Do the work on rank 0 alone, and return its value on every rank.

    Raises:
        Exception: what the work raised, on every rank, so that none waits for the others.
    """
    value: Value | None = None
    error: Exception | None = None
    if rank() == 0:
        try:
            value = work()
        except Exception as problem:  # noqa: BLE001 -- raised below, on every rank
            error = problem
    value, error = as_rank_0_says((value, error))
    if error is not None:
        raise error
    return value  # type: ignore[return-value] # without an error there is a value
