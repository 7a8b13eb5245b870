"""Checkpoints that are either whole or not there, and that any number of workers can load.

A checkpoint is a folder `step-00000200-a1/` written by torch.distributed.checkpoint, parameters and moments by name. It
counts from the moment at which rank 0 has put the manifest, written last, in its place. The manifest holds the sha256
of every file, computed by each rank while it writes its own.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.optim import Optimizer

from workers import ranks
from workers.contract.manifests import CheckpointManifest
from workers.contract.run.folder import CheckpointName, RunFolder

from .hashing import Writer


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that was just committed."""

    name: CheckpointName
    place: str
    """Its path or URL."""
    size_bytes: int
    seconds: float


def nothing() -> None:
    """Do nothing before a checkpoint is committed."""


def save(
    folder: RunFolder,
    draft: CheckpointManifest,
    state: dict[str, Any],
    *,
    group: ProcessGroup | None = None,
    before_commit: Callable[[], None] = nothing,
) -> Saved:
    """Write a checkpoint into a run folder. Every rank calls this; what they write is one checkpoint.

    Args:
        folder: the run folder.
        draft: the manifest of the checkpoint, with no files yet; what rank 0 gives counts.
        state: as `state_of` returns it, or a copy of that.
        group: over which the ranks talk; None for the default group.
        before_commit: is done on rank 0 when all files are written and the manifest is not.

    Raises:
        OSError: the disk is full or not writable, or a store on another machine does not take it. The checkpoints that
            were there before are untouched, and what was written of this one is removed.
        SupersededError: a newer attempt has begun, and the checkpoint was not committed.
    """
    begin = time.monotonic()
    name = CheckpointName(draft.step, draft.attempt)
    writer, place = Writer(folder, name), folder.store.place(name.prefix)

    def commit(files: dict[str, Any]) -> None:
        before_commit()
        folder.keep_journal(name.attempt)
        folder.check(name.attempt)
        manifest = draft.model_copy(update={"files": files})
        folder.store.put(name.manifest, manifest.model_dump_json(indent=1).encode())

    try:
        # What is there was left by a run that was killed while it wrote.
        ranks.as_rank_0_does(lambda: folder.remove_checkpoint(name), group)
        dcp_save(state, storage_writer=writer, process_group=group)
        files = {file: content for written in ranks.gather(writer.files, group) for file, content in written.items()}
        ranks.as_rank_0_does(lambda: commit(files), group)
    except (CheckpointException, OSError) as error:
        with suppress(OSError):  # the first error says what is wrong
            ranks.as_rank_0_does(lambda: folder.remove_checkpoint(name), group)
        raise OSError(
            f"the checkpoint of step {name.step} could not be written to {place}: {_causes(error)}"
        ) from error
    return Saved(name, place, sum(file.size_bytes for file in files.values()), time.monotonic() - begin)


def _causes(error: CheckpointException | OSError) -> str:
    if isinstance(error, OSError):
        return str(error)
    return "; ".join(f"rank {rank}: {cause[0]}" for rank, cause in sorted(error.failures.items()))


def state_of(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Return what a checkpoint holds: parameters and moments by name."""
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}
