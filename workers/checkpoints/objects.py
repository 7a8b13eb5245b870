"""The files of a checkpoint as torch.distributed.checkpoint sees them: each is an object of a run's store.

torch has a writer for fsspec's file systems. It renames `.metadata`, which an object store cannot do, and where a write
fails it stores what was written so far before it removes that. Here a store does what it promises, whichever it is.
"""

import hashlib
import io
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import PurePath
from typing import BinaryIO

from torch.distributed.checkpoint.filesystem import FileSystem
from typing_extensions import Buffer

from workers.contract.manifests import StoredFile
from workers.contract.run.store import Store

_Path = str | os.PathLike[str]


class Objects(FileSystem):
    """The objects of a store whose names begin with `prefix/`; torch names them by whole paths.

    Attributes:
        files: What was written, by the last part of its name, with its sha256.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self.files: dict[str, StoredFile] = {}
        self._store, self._prefix = store, prefix

    @contextmanager
    def create_stream(self, path: _Path, mode: str) -> Generator[io.IOBase, None, None]:
        """Open an object for reading, or for writing from its beginning: it is there when the block has ended."""
        name = self._name(path)
        if mode == "rb":
            with self._store.reading(name) as file:
                yield file  # type: ignore[misc] # files of this kind are no IOBase to mypy, and are to torch
            return
        if mode != "wb":
            raise ValueError(f"{path} can be read or written from its beginning, but mode {mode} was asked for")
        with self._store.writing(name) as file:
            hashing = _Hashing(file)
            yield hashing
            stored = StoredFile(size_bytes=hashing.tell(), sha256=hashing.sha256.hexdigest())
        self.files[PurePath(path).name] = stored

    def concat_path(self, path: _Path, suffix: str) -> str:
        """Return the path of a file."""
        return f"{os.fspath(path)}/{suffix}"

    def init_path(self, path: _Path) -> _Path:
        """Return the path as it is."""
        return path

    def mkdir(self, path: _Path) -> None:
        """Do nothing: a store has no folders."""

    def exists(self, path: _Path) -> bool:
        """Whether there is such an object."""
        return self._store.has(self._name(path))

    def rm_file(self, path: _Path) -> None:
        """Remove an object."""
        self._store.delete(self._name(path))

    def rename(self, path: _Path, new_path: _Path) -> None:
        """Refuse.

        Raises:
            NotImplementedError: objects keep their names.
        """
        raise NotImplementedError(f"{path} cannot become {new_path}: objects of a store keep their names")

    def _name(self, path: _Path) -> str:
        return f"{self._prefix}/{PurePath(path).name}"


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
