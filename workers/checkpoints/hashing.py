"""The sha256 of a checkpoint's files: computed while they are written, compared when they are read."""

import hashlib
import io
import pickle
from collections.abc import Generator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, FileSystem, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.storage import WriteResult
from typing_extensions import Buffer

from workers.contract.manifests import StoredFile
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.run.store import FolderStore

from .errors import DamagedError
from .unpickling import METADATA


def check_file(path: Path, stored: StoredFile) -> None:
    """Check that a file holds what was written to it; of format 1, only that it has the same size.

    Raises:
        DamagedError: it does not, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            found = hashlib.file_digest(file, "sha256").hexdigest() if stored.sha256 else None
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read: {error.strerror}") from error
    if size != stored.size_bytes:
        raise DamagedError(f"{path.name} has {size} bytes; {stored.size_bytes} were written")
    if found != stored.sha256:
        raise DamagedError(f"{path.name} has the sha256 {found}; {stored.sha256} was written")


class Writer(FileSystemWriter):
    """Writes this rank's files of one checkpoint as objects of the store.

    Attributes:
        files: What was written, by file name.
    """

    def __init__(self, folder: RunFolder, name: CheckpointName) -> None:
        super().__init__(folder.store.path(name.prefix), sync_files=False)  # the store does that
        self._objects = _Objects(folder.store, name.prefix)
        self.fs = self._objects
        self.files = self._objects.files

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write what the checkpoint holds and where; rank 0 does, when all ranks have written their files."""
        metadata.version = CURRENT_DCP_VERSION
        metadata.storage_data = {written.index: written.storage_data for each in results for written in each}
        metadata.storage_meta = self.storage_meta()
        with self._objects.create_stream(METADATA, "wb") as file:
            pickle.dump(metadata, file)


class _Objects(FileSystem):
    """Where torch writes its files: each is an object of the store, and its sha256 is kept."""

    def __init__(self, store: FolderStore, prefix: str) -> None:
        self.files: dict[str, StoredFile] = {}
        self._store, self._prefix = store, prefix

    @contextmanager
    def create_stream(self, path: str | PathLike[str], mode: str) -> Generator[io.IOBase, None, None]:
        """Open an object for writing."""
        if mode != "wb":
            raise ValueError(f"{path} can be written from its beginning, mode wb, but mode {mode} was asked for")
        name = Path(path).name
        with self._store.writing(f"{self._prefix}/{name}") as file:
            hashing = _Hashing(file)
            yield hashing
            self.files[name] = StoredFile(size_bytes=hashing.tell(), sha256=hashing.sha256.hexdigest())


class _Hashing(io.RawIOBase):
    """Hands on what is written, and hashes it. The file that it writes to is closed by who opened it."""

    def __init__(self, file: BinaryIO) -> None:
        self.sha256 = hashlib.sha256()
        self._file = file

    def write(self, content: Buffer) -> int:
        self.sha256.update(content)
        return self._file.write(content)

    def tell(self) -> int:
        return self._file.tell()
