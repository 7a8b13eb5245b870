"""A small model after two steps, and its checkpoints in a run folder."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import save as torch_save

from optim import Lamb
from workers.checkpoints.save import save, state_of
from workers.contract.manifests import CheckpointManifest
from workers.contract.run.folder import RunFolder


def trained(seed: int = 0) -> tuple[nn.Module, Lamb]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = Lamb(model.named_parameters(), lr=0.1)
    for _ in range(2):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def write(path: Path, *steps: int, attempt: int = 1, seed: int = 0, is_sound: bool = True) -> Path:
    """Write the checkpoints of these steps; return the folder of the last."""
    model, optimizer = trained(seed)
    for step in steps:
        described = draft(step, attempt, is_sound=is_sound)
        saved = save(RunFolder(path), described, state_of(model, optimizer))
    return Path(saved.place)


def draft(step: int, attempt: int = 1, **known: Any) -> CheckpointManifest:
    """The manifest of a checkpoint that one rank writes, without its files."""
    return CheckpointManifest(step=step, attempt=attempt, world_size=1, files={}, **known)


def same(first: tuple[nn.Module, Lamb], second: tuple[nn.Module, Lamb]) -> bool:
    """Whether two models and their optimizers' states are the same to the last bit."""
    pairs = list(zip(first[0].parameters(), second[0].parameters(), strict=True))
    states = [(first[1].state[a][key], second[1].state[b][key]) for a, b in pairs for key in first[1].state[a]]
    return all(torch.equal(a, b) for a, b in [*pairs, *states])


def write_format_1(path: Path, step: int, seed: int = 0) -> Path:
    """Write a checkpoint as the version before attempts and hashes did."""
    model, optimizer = trained(seed)
    folder = path / "checkpoints" / f"step-{step:08d}"
    torch_save(state_of(model, optimizer), checkpoint_id=folder)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    (folder / "manifest.json").write_text(json.dumps({"step": step, "world_size": 1, "sizes_bytes": sizes}))
    return folder
