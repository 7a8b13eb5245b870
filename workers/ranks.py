"""The process group, and what ranks tell each other."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore, PrefixStore, Store

from .contract.spec.job import JobSpec

Value = TypeVar("Value")
_TELL_EVERY = timedelta(seconds=1)


@contextmanager
def process_group(spec: JobSpec) -> Iterator[None]:
    """Join the other workers as torchrun's environment says, or be the only one where it says nothing."""
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend(spec))
    else:
        dist.init_process_group(backend(spec), store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def backend(spec: JobSpec) -> str:
    """Return by which of torch's libraries the workers exchange tensors."""
    return "nccl" if spec.parallel.gpus_per_worker else "gloo"


def world_size() -> int:
    """Return the number of workers."""
    return dist.get_world_size()


def rank() -> int:
    """Return this worker's number, from 0."""
    return dist.get_rank()


@contextmanager
def group_of_hosts() -> Iterator[dist.ProcessGroup]:
    """Yield a group of all workers for tensors in the memory of their hosts. Every rank calls this.

    A thread may use it while another one uses the workers' own group.
    """
    group = dist.new_group(backend="gloo")
    try:
        yield group
    finally:
        dist.destroy_process_group(group)


def all_reduce_sum(tensor: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Sum `tensor` over all workers, in place."""
    dist.all_reduce(tensor, group=group)
    return tensor


def any_of(is_so: bool, device: torch.device) -> bool:
    """Tell on every rank whether it is so on any."""
    return bool(all_reduce_sum(torch.tensor(float(is_so), device=device)))


def gather(value: Value, group: dist.ProcessGroup | None = None) -> list[Value]:
    """Return every rank's value on every rank, in rank order."""
    values: list[Value | None] = [None] * world_size()
    dist.all_gather_object(values, value, group)
    return values  # type: ignore[return-value] # every rank has put its own in place


def store(what: str) -> PrefixStore:
    """Return the process group's store, with keys of its own and by a connection of its own.

    So a thread can use it while another one waits for something there.
    """
    return PrefixStore(what, _default_store().clone())  # type: ignore[attr-defined] # torch's stub lacks it


def _default_store() -> Store:
    found: Store = dist.distributed_c10d._get_default_store()  # noqa: SLF001 -- there is no other way
    return found


class LateError(RuntimeError):
    """Other ranks did not come in time."""


def wait_for_all(what: str, timeout: timedelta, on_wait: Callable[[list[int]], None]) -> None:
    """Return when every rank has called this. Unlike a collective, it may take as long as the caller says.

    The ranks meet in the store of the process group. Whoever started them notices it when one of them dies.

    Args:
        what: is waited for, as an error says it.
        timeout: how long to wait for the last rank.
        on_wait: is told about every second which ranks have not come yet.

    Raises:
        LateError: some rank has not come in time.
    """
    store = PrefixStore(what, _default_store())
    turn = store.add(f"turns of rank {rank()}", 1)
    keys = [f"rank {each} in turn {turn}" for each in range(world_size())]
    store.set(keys[rank()], "")
    deadline = time.monotonic() + timeout.total_seconds()
    while missing := [each for each, key in enumerate(keys) if not store.check([key])]:
        try:
            store.wait([keys[missing[0]]], _TELL_EVERY)
        except RuntimeError:  # stores do not agree on a class for this; one that is gone fails in `check`
            if time.monotonic() > deadline:
                raise LateError(f"{what}: nothing was heard of the ranks {missing} within {timeout}") from None
            on_wait(missing)


def gather_errors(error: str | None) -> list[str]:
    """Return what went wrong on any rank, in rank order."""
    return [each for each in gather(error) if each is not None]


def as_rank_0_says(value: Value, group: dist.ProcessGroup | None = None) -> Value:
    """Return rank 0's value on every rank."""
    said = [value]
    dist.broadcast_object_list(said, src=0, group=group)
    return said[0]


def as_rank_0_does(work: Callable[[], Value], group: dist.ProcessGroup | None = None) -> Value:
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
    value, error = as_rank_0_says((value, error), group)
    if error is not None:
        raise error
    return value  # type: ignore[return-value] # without an error there is a value
