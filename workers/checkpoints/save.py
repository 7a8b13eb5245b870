"""Checkpoints that are either whole or not there, and that any number of workers can load.

A checkpoint is a folder `step-00000200-a1/` written by torch.distributed.checkpoint, parameters and moments by name. It
counts from the moment at which rank 0 has put the manifest, written last, in its place. The manifest holds the sha256
of every file, computed by each rank while it writes its own.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.optim import Optimizer

from workers import ranks
from workers.contract.manifests import SAMPLES_FORMAT, CheckpointManifest
from workers.contract.records import EvaluationRecord
from workers.contract.run.folder import CheckpointName, RunFolder

from .hashing import Writer


class SoFar(NamedTuple):
    """What the manifest says of the run up to a checkpoint."""

    best_loss: float | None = None
    evaluation: EvaluationRecord | None = None
    tokens: int | None = None
    seconds: float | None = None


NOTHING_KNOWN = SoFar()


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that was just committed."""

    path: Path
    size_bytes: int
    seconds: float


def save(
    folder: RunFolder,
    name: CheckpointName,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    identity: str | None = None,
    is_sound: bool = True,
    so_far: SoFar = NOTHING_KNOWN,
) -> Saved:
    """Write a checkpoint into a run folder. Every rank calls this; what they write is one checkpoint.

    Raises:
        OSError: the disk is full or not writable. The checkpoints that were there before are untouched, and what was
            written of this one is removed.
    """
    begin = time.monotonic()
    ranks.as_rank_0_does(lambda: remove(folder, name))  # left by a run that was killed while it wrote
    writer = Writer(folder, name)
    try:
        dcp_save(state_of(model, optimizer), storage_writer=writer)
    except CheckpointException as error:
        ranks.as_rank_0_does(lambda: remove(folder, name))
        causes = "; ".join(f"rank {rank}: {cause[0]}" for rank, cause in sorted(error.failures.items()))
        raise OSError(f"the checkpoint of step {name.step} could not be written to {writer.path}: {causes}") from error
    files = {file: content for written in ranks.gather(writer.files) for file, content in written.items()}
    manifest = CheckpointManifest(
        step=name.step,
        world_size=ranks.world_size(),
        attempt=name.attempt,
        identity=identity,
        samples_format=SAMPLES_FORMAT,
        files=files,
        is_sound=is_sound,
        **so_far._asdict(),
    )
    ranks.as_rank_0_does(lambda: folder.store.put(name.manifest, manifest.model_dump_json(indent=1).encode()))
    return Saved(Path(writer.path), sum(file.size_bytes for file in files.values()), time.monotonic() - begin)


def state_of(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Return what a checkpoint holds: parameters and moments by name."""
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}


def remove(folder: RunFolder, name: CheckpointName) -> None:
    """Remove a checkpoint, the manifest first, so that half of one is never taken for a whole one."""
    folder.store.delete(name.manifest)
    folder.store.clear(name.prefix)
