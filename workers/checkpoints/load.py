"""Finds the newest checkpoint that is what was written, and loads it into a model on any number of workers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.optim import Optimizer

from workers import ranks
from workers.contract.manifests import CheckpointManifest
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.run.remote import StorageError

from .errors import CheckpointError, DamagedError
from .hashing import check_file
from .save import state_of
from .unpickling import WEIGHTS, Planner, Reader, read_metadata, said


@dataclass(frozen=True, slots=True)
class Loaded:
    """The checkpoint that a run goes on from."""

    name: CheckpointName
    manifest: CheckpointManifest
    damaged: tuple[str, ...]
    """Which newer ones could not be used, each with the reason."""


def load_newest(
    folder: RunFolder, model: nn.Module, optimizer: Optimizer, identity: str | None = None
) -> Loaded | None:
    """Load the newest checkpoint that is undamaged, however many workers wrote it. Every rank calls this.

    Args:
        folder: where the checkpoints are.
        model: gets the parameters.
        optimizer: gets the moments.
        identity: of the text that the run is trained on; None where it does not matter.

    Returns:
        None where no checkpoint was ever finished.

    Raises:
        CheckpointError: there are checkpoints, and all of them are damaged, or the newest is of another text or model.
        StorageError: a store on another machine cannot be read at this moment, which says nothing of what it holds.
    """
    damaged: list[str] = []
    for name in ranks.as_rank_0_does(lambda: committed(folder))[::-1]:
        try:
            manifest = check(folder, name)
            _refuse_another(name, manifest, identity, _difference(folder, name, manifest, get_model_state_dict(model)))
            load(folder, name, manifest, model, optimizer)
        except DamagedError as error:
            damaged.append(f"{name.prefix}: {error}")
        else:
            return Loaded(name, manifest, tuple(damaged))
    if damaged:
        raise CheckpointError(
            f"every checkpoint in {folder.checkpoints_place} is damaged: {'; '.join(damaged)}. Put a copy of one in "
            "its place, or remove that folder to begin again at step 1"
        )
    return None


def _refuse_another(
    name: CheckpointName, manifest: CheckpointManifest, identity: str | None, difference: str | None
) -> None:
    found = f": {difference}" if difference else ""
    if None not in (identity, manifest.identity) and identity != manifest.identity:
        raise CheckpointError(
            f"{name.prefix} was trained on another text, vocabulary or settings{found}. Its identity is "
            f"{str(manifest.identity)[:16]}, that of the job is {str(identity)[:16]}. Bring the old ones back, or name "
            "another run folder"
        )
    if difference:
        raise CheckpointError(
            f"{name.prefix} is of another model or vocabulary{found}. Write the model section and data.vocab as they "
            "were, or name another run folder"
        )


def _difference(
    folder: RunFolder, name: CheckpointName, manifest: CheckpointManifest, weights: Mapping[str, Any]
) -> str | None:
    """Name the first weight of the model that the checkpoint has in another shape or not at all, or else has beyond it.

    Raises:
        DamagedError: what the checkpoint holds cannot be read.
    """
    described = read_metadata(folder.store, name.prefix, manifest.files).state_dict_metadata
    there = {
        key.removeprefix(WEIGHTS): list(stored.size)
        for key, stored in described.items()
        if isinstance(stored, TensorStorageMetadata) and key.startswith(WEIGHTS)
    }
    here = {key: list(weight.shape) for key, weight in weights.items()}
    for key in [*here, *there]:
        if here.get(key) != there.get(key):
            found, wanted = (f"is {sizes[key]}" if key in sizes else "is missing" for sizes in (there, here))
            return f"{key} {found} there, and {wanted} in the job"
    return None


def committed(folder: RunFolder) -> list[CheckpointName]:
    """Return the checkpoints that were finished, the oldest first."""
    return sorted(folder.finished(), key=age)


def age(name: CheckpointName) -> tuple[int, int]:
    """Order checkpoints from old to new.

    What a later attempt wrote is newer: where it went back to an earlier step, the later steps could not be used.
    """
    return name.attempt, name.step


def check(folder: RunFolder, name: CheckpointName) -> CheckpointManifest:
    """Check that a checkpoint is what was written; each rank reads a share of its files. Every rank calls this.

    Raises:
        DamagedError: it is not, or it cannot be read.
        StorageError: a store on another machine cannot be read at this moment.
    """
    manifest = ranks.as_rank_0_does(lambda: read_manifest(folder, name))

    def read_share() -> None:
        for file in sorted(manifest.files)[ranks.rank() :: ranks.world_size()]:
            check_file(folder.store, f"{name.prefix}/{file}", manifest.files[file])
        if ranks.rank() == 0:
            read_metadata(folder.store, name.prefix, manifest.files)

    _on_every_rank(read_share)
    return manifest


def _on_every_rank(work: Callable[[], None]) -> None:
    """Do the work, and raise on all ranks what it raised on any: a store that cannot be read before damage."""
    error: DamagedError | StorageError | None = None
    try:
        work()
    except (DamagedError, StorageError) as problem:
        error = problem
    errors = [each for each in ranks.gather(error) if each is not None]
    for each in sorted(errors, key=lambda each: isinstance(each, DamagedError)):
        raise each


def read_manifest(folder: RunFolder, name: CheckpointName) -> CheckpointManifest:
    """Read what a checkpoint's manifest says.

    Raises:
        DamagedError: it cannot be read, or belongs to another step.
        StorageError: a store on another machine cannot be read at this moment.
    """
    try:
        manifest = CheckpointManifest.parse(folder.store.place(name.manifest), folder.store.read(name.manifest))
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        raise DamagedError(f"manifest.json cannot be read: {error}") from error
    if manifest.step != name.step:
        raise DamagedError(f"manifest.json is that of step {manifest.step}")
    return manifest


def load(
    folder: RunFolder, name: CheckpointName, manifest: CheckpointManifest, model: nn.Module, optimizer: Optimizer
) -> None:
    """Load a checkpoint that was checked. Every rank calls this.

    Learning rate, weight decay and the like stay as the optimizer has them: they are the specification's, and a branch
    may have others than the run that wrote the checkpoint.

    Raises:
        DamagedError: its files do not hold this model and this optimizer's state.
        StorageError: a store on another machine cannot be read at this moment.
    """
    state = state_of(model, optimizer)
    try:
        dcp_load(state, storage_reader=Reader(folder.store, name.prefix, manifest.files), planner=Planner())
    except CheckpointException as error:
        raise_for_storage(error)
        causes = "; ".join(f"rank {rank}: {said(cause[0])}" for rank, cause in sorted(error.failures.items()))
        raise DamagedError(f"it cannot be loaded: {causes}") from error
    settings = [{key: group[key] for key in group.keys() - {"params"}} for group in optimizer.param_groups]
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def raise_for_storage(error: CheckpointException) -> None:
    """Do nothing, unless torch could not load or save because of a store on another machine.

    Raises:
        StorageError: it could not.
    """
    for cause, _ in error.failures.values():
        if isinstance(cause, StorageError):
            raise cause from error
