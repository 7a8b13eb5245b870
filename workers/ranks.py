"""The process group, and what ranks tell each other."""

import os
from collections.abc import Iterator
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


def gather_errors(error: str | None) -> list[str]:
    """Return what went wrong on any rank, in rank order."""
    errors: list[str | None] = [None] * world_size()
    dist.all_gather_object(errors, error)
    return [each for each in errors if each is not None]


def as_rank_0_says(value: Value) -> Value:
    """Return rank 0's value on every rank."""
    said = [value]
    dist.broadcast_object_list(said, src=0)
    return said[0]
