"""Checkpoints that are written while training goes on.

Training is held while a checkpoint is copied to memory. A thread of each rank then writes the copy. The threads talk
over a process group of their own: what they tell each other must not come between the collectives of training, whose
order is the same on all ranks only within one thread.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from workers.contract.manifests import CheckpointManifest
from workers.contract.run.folder import RunFolder

from .save import Saved, nothing, save

Value = TypeVar("Value")


class BackgroundWriter:
    """Writes one checkpoint at a time. Every rank makes one, at the same time, and keeps it for all checkpoints.

    Host memory: one copy of this rank's share of weights and moments, which stays for the next checkpoint. It is pinned
    where training is on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        is_gpu = device.type == "cuda"
        self._device = device
        self._group = dist.new_group(backend="gloo")
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=is_gpu, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=is_gpu
            )
        )

    def begin(
        self,
        folder: RunFolder,
        draft: CheckpointManifest,
        state: dict[str, Any],
        before_commit: Callable[[], None] = nothing,
    ) -> Future[Saved]:
        """Copy a checkpoint to memory and have it written, as `save` does. Every rank calls this.

        The one before must have been written: its copy is overwritten.
        """
        copy = self._stager.stage(state)
        if isinstance(copy, Future):
            raise TypeError("the stager copies in the background, though it was told not to")

        def write() -> Saved:
            if self._device.type == "cuda":  # else a thread is on the first GPU, whichever its rank has
                torch.cuda.set_device(self._device)
            return save(folder, draft, copy, group=self._group, before_commit=before_commit)

        return in_a_thread(write)


def in_a_thread(work: Callable[[], Value]) -> Future[Value]:
    """Do the work in a thread that does not keep the process from ending."""
    outcome: Future[Value] = Future()
    threading.Thread(target=_do, args=(work, outcome), name="checkpoint", daemon=True).start()
    return outcome


def at_once(work: Callable[[], Value]) -> Future[Value]:
    """Do the work now."""
    outcome: Future[Value] = Future()
    _do(work, outcome)
    return outcome


def _do(work: Callable[[], Value], outcome: Future[Value]) -> None:
    try:
        outcome.set_result(work())
    except Exception as error:  # noqa: BLE001 -- raised where the outcome is asked for
        outcome.set_exception(error)
