"""Checkpoints that are either whole or not there, and that any number of workers can load.

A checkpoint is a folder `step-00000200/` written by torch.distributed.checkpoint, parameters and moments by name. It
counts from the moment at which rank 0 has put the manifest, written last, in its place.
"""

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.optim import Optimizer

from workers.ranks import rank, world_size

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a whole checkpoint holds."""

    step: int
    world_size: int
    sizes_bytes: dict[str, int]
    """Of each file in the folder, to tell a whole copy from a torn one."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that was just committed."""

    path: Path
    size_bytes: int
    seconds: float


def save(folder: Path, step: int, model: nn.Module, optimizer: Optimizer, *, keep: int) -> Saved:
    """Write the checkpoint of `step` under `folder` and drop all but the newest `keep`. Every rank calls this.

    Raises:
        OSError: the disk is full or not writable; checkpoints that were there before are untouched.
    """
    begin, target = time.monotonic(), folder / f"step-{step:08d}"
    if rank() == 0 and target.exists():
        shutil.rmtree(target)  # left by a run that was killed while it wrote
    dist.barrier()
    dcp_save(_state(model, optimizer), checkpoint_id=target)
    sizes = _commit(target, step) if rank() == 0 else {}
    if rank() == 0:
        for old in _whole(folder)[:-keep]:
            _remove(old)
    return Saved(target, sum(sizes.values()), time.monotonic() - begin)


def newest(folder: Path) -> tuple[int, Path] | None:
    """Find the newest whole checkpoint: its step and its folder."""
    whole = _whole(folder)
    return (_manifest(whole[-1]).step, whole[-1]) if whole else None


def load(path: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Load a checkpoint into a model and an optimizer, however many workers wrote it. Every rank calls this."""
    state = _state(model, optimizer)
    dcp_load(state, checkpoint_id=path)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}


def _commit(target: Path, step: int) -> dict[str, int]:
    sizes = {path.name: path.stat().st_size for path in target.iterdir()}
    draft = target / f"{_MANIFEST}.tmp"
    with draft.open("w") as file:
        json.dump(asdict(Manifest(step, world_size(), sizes)), file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target / _MANIFEST)
    return sizes


def _whole(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("step-*")) if _is_whole(path)]


def _is_whole(path: Path) -> bool:
    if not (path / _MANIFEST).exists():
        return False
    sizes = _manifest(path).sizes_bytes
    return all((path / name).exists() and (path / name).stat().st_size == size for name, size in sizes.items())


def _manifest(path: Path) -> Manifest:
    return Manifest(**json.loads((path / _MANIFEST).read_text()))


def _remove(path: Path) -> None:
    """Take the manifest away first, so that a half-removed checkpoint is never taken for a whole one."""
    (path / _MANIFEST).unlink()
    shutil.rmtree(path)
