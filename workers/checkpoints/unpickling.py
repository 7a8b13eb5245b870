"""Reads what torch.distributed.checkpoint pickled, without running what somebody else may have put there.

`.metadata` is a pickle, and torch reads it with `pickle.load`; torch also loads what is not a tensor, such as the
optimizer's settings, with `weights_only=False`. A pickle can name any function of any module. Here it can name the
classes that describe a checkpoint, and nothing else.
"""

import io
import pickle
from collections.abc import Collection
from typing import IO, Any

import torch
from torch.distributed.checkpoint import metadata as described
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

from workers.contract.run.remote import StorageError
from workers.contract.run.store import Store

from .errors import DamagedError
from .objects import Objects

METADATA = ".metadata"
WEIGHTS = "model."
"""The names of weights begin with this in what is described there."""


def _layout(name: str) -> torch.layout:
    """Stand in for torch's function, which looks the name up in all of torch."""
    if name != "torch.strided":
        raise pickle.UnpicklingError(f"a tensor has the layout {name}; only torch.strided is known here")
    return torch.strided


def _member(kind: object, name: str) -> described._MEM_FORMAT_ENCODING:
    """Stand in for `getattr`, by which some releases of Python 3.11, such as Debian 12's, pickle an enumeration."""
    members = described._MEM_FORMAT_ENCODING.__members__  # noqa: SLF001 -- as below
    if kind is not described._MEM_FORMAT_ENCODING or name not in members:  # noqa: SLF001
        raise pickle.UnpicklingError(f"it names {name} of {kind}, which describes no checkpoint and is not loaded")
    return members[name]


def _is_dtype(value: object) -> bool:
    return isinstance(value, torch.dtype)


def _path(*parts: str) -> None:
    """Stand in for the path at which the checkpoint lay when it was written; nobody needs it."""


_DESCRIBED = (
    described.Metadata,
    described.StorageMeta,
    described.MetadataIndex,
    described.TensorStorageMetadata,
    described.BytesStorageMetadata,
    described.ChunkStorageMetadata,
    described.TensorProperties,
    described._MEM_FORMAT_ENCODING,  # noqa: SLF001 -- torch pickles it by this name
    _StorageInfo,
)
_KNOWN: dict[tuple[str, str], Any] = {
    **{(known.__module__, known.__name__): known for known in _DESCRIBED},
    **{("torch", str(value).removeprefix("torch.")): value for value in vars(torch).values() if _is_dtype(value)},
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): _layout,
    ("builtins", "getattr"): _member,
    # pathlib's classes, by the names of several versions of Python.
    **{(module, f"{kind}Path"): _path for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")},
}


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return one of the known classes."""
        try:
            return _KNOWN[module, name]
        except KeyError:
            message = f"it names {module}.{name}, which describes no checkpoint and is not loaded"
            raise pickle.UnpicklingError(message) from None


class Reader(FileSystemReader):
    """Reads the files of one checkpoint, those alone that its manifest names."""

    def __init__(self, store: Store, prefix: str, files: Collection[str]) -> None:
        super().__init__(prefix)
        self.fs = Objects(store, prefix)
        self._store, self._prefix, self._files = store, prefix, files

    def read_metadata(self) -> Metadata:
        """Read `.metadata`; without torch's arguments, so that torch does not try other files where this fails."""
        metadata = read_metadata(self._store, self._prefix, self._files)
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata

    def _slice_file(self, file: IO[bytes], sinfo: _StorageInfo) -> IO[bytes]:
        """Read one shard of a tensor at once: in small pieces, each would be a request to an object store."""
        file.seek(sinfo.offset)
        return io.BytesIO(file.read(sinfo.length))


def read_metadata(store: Store, prefix: str, files: Collection[str]) -> Metadata:
    """Read what the checkpoint whose objects begin with `prefix/` says of its tensors.

    Raises:
        DamagedError: `.metadata` is missing, describes no checkpoint, or names other files than `files`.
        StorageError: a store on another machine cannot be read at this moment.
    """
    try:
        metadata = _MetadataUnpickler(io.BytesIO(store.read(f"{prefix}/{METADATA}"))).load()
    except StorageError:
        raise
    except Exception as error:  # damaged bytes make the unpickler raise almost anything
        raise DamagedError(f"{METADATA} cannot be read: {error}") from error
    if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, dict):
        raise DamagedError(f"{METADATA} does not describe a checkpoint")
    for stored in metadata.storage_data.values():
        if not isinstance(stored, _StorageInfo) or stored.relative_path not in files:
            raise DamagedError(f"{METADATA} names a file that the manifest does not: {stored!r}")
    return metadata


def said(error: BaseException) -> str:
    """Say what is wrong; torch's own words for a pickle that is not data advise to load it all the same."""
    is_torchs = isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error)
    return "it holds what is not data, and is not loaded" if is_torchs else str(error)


class Planner(DefaultLoadPlanner):
    """Loads what is not a tensor as data: numbers, texts, lists and the like."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Put one such value into its place."""
        place = self.mappings[read_item.dest_index.fqn]
        set_element(self.original_state_dict, place, torch.load(value, weights_only=True))
