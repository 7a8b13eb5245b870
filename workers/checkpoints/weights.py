"""Reads the weights of one checkpoint on one process, however many workers wrote it."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from transformers import BertForPreTraining

from workers.contract.run.folder import CheckpointName, RunFolder

from .errors import DamagedError
from .hashing import check_file
from .load import raise_for_storage, read_manifest
from .unpickling import WEIGHTS, Planner, Reader, read_metadata

TIED: dict[str, str] = dict(BertForPreTraining._tied_weights_keys)  # noqa: SLF001 -- nothing else says which are tied
"""Names of weights that are another one's, with that one's name: transformers ties them when it loads."""

Progress = Callable[[str, float], None]
"""Told what is being done ("checking", "writing") and which part of it is done, 0 to 1."""


def silent(_what: str, _done: float) -> None:
    """Tell nobody."""


def read_weights(folder: RunFolder, name: CheckpointName, report: Progress) -> dict[str, Tensor]:
    """Read the weights by their names in `BertForPreTraining`, each once, on the CPU.

    Every file is checked first. Memory beyond the weights themselves: the largest shard of one of them, twice.

    Raises:
        DamagedError: the checkpoint is not what was written.
        StorageError: a store on another machine cannot be read at this moment.
    """
    manifest, store = read_manifest(folder, name), folder.store
    for number, file in enumerate(sorted(manifest.files)):
        report("checking", number / len(manifest.files))
        check_file(store, f"{name.prefix}/{file}", manifest.files[file])
    described = read_metadata(store, name.prefix, manifest.files).state_dict_metadata
    weights = {
        key.removeprefix(WEIGHTS): torch.empty(stored.size, dtype=stored.properties.dtype)
        for key, stored in described.items()
        if isinstance(stored, TensorStorageMetadata) and key.startswith(WEIGHTS)
    }
    for tied in TIED:
        weights.pop(tied, None)
    report("reading", 0.0)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # torch says so although it was asked to
            reader = Reader(store, name.prefix, manifest.files)
            dcp_load({"model": weights}, storage_reader=reader, planner=Planner(), no_dist=True)
    except CheckpointException as error:
        raise_for_storage(error)
        causes = "; ".join(str(cause[0]) for cause in error.failures.values())
        raise DamagedError(f"it cannot be loaded: {causes}") from error
    return weights
