"""The sha256 of a checkpoint's files: computed while they are written, compared when they are read."""

import hashlib
import os
import pickle
from pathlib import PurePath

from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.storage import WriteResult

from workers.contract.manifests import StoredFile
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.run.remote import StorageError
from workers.contract.run.store import Store

from .errors import DamagedError
from .objects import Objects
from .unpickling import METADATA

_BLOCK = 16 * 2**20


def check_file(store: Store, name: str, stored: StoredFile) -> None:
    """Check that an object holds what was written to it; of format 1, only that it has the same size.

    Raises:
        DamagedError: it does not, or cannot be read.
        StorageError: a store on another machine cannot be read at this moment.
    """
    file_name = PurePath(name).name
    try:
        with store.reading(name) as file:
            size, found = file.seek(0, os.SEEK_END), None
            if stored.sha256:
                file.seek(0)
                found = hashlib.sha256()
                while block := file.read(_BLOCK):
                    found.update(block)
    except StorageError:
        raise
    except OSError as error:
        raise DamagedError(f"{file_name} cannot be read: {error.strerror or error}") from error
    if size != stored.size_bytes:
        raise DamagedError(f"{file_name} has {size} bytes; {stored.size_bytes} were written")
    if found and found.hexdigest() != stored.sha256:
        raise DamagedError(f"{file_name} has the sha256 {found.hexdigest()}; {stored.sha256} was written")


class Writer(FileSystemWriter):
    """Writes this rank's files of one checkpoint as objects of the store.

    Attributes:
        files: What was written, by file name.
    """

    def __init__(self, folder: RunFolder, name: CheckpointName) -> None:
        super().__init__(name.prefix, sync_files=False)  # the store does that
        self._objects = Objects(folder.store, name.prefix)
        self.fs = self._objects
        self.path = folder.store.place(name.prefix)
        self.files = self._objects.files

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write what the checkpoint holds and where; rank 0 does, when all ranks have written their files."""
        metadata.version = CURRENT_DCP_VERSION
        metadata.storage_data = {written.index: written.storage_data for each in results for written in each}
        metadata.storage_meta = self.storage_meta()
        with self._objects.create_stream(METADATA, "wb") as file:
            pickle.dump(metadata, file)
