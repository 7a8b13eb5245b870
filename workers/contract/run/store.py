"""A store of whole objects: put, list, read and delete by name, and nothing else.

It is a folder, or a place on an object store (`remote.py`), so nobody may append to an object, rename or lock one.
"""

import os
import shutil
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from workers.contract.files import DRAFT, replacing


class Store(Protocol):
    """Objects by their names, which are paths such as `checkpoints/step-00000200-a1/manifest.json`.

    Every method raises OSError where the store cannot do what it should.
    """

    def put(self, name: str, content: bytes) -> None:
        """Store an object in place of what had this name, at once."""

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Store what the block writes. The object is there, whole, once the block has ended without an error."""

    def take(self, name: str, source: "Store", theirs: str) -> None:
        """Store what another store has under the name `theirs`; neither can change or remove what the other has.

        Raises:
            FileNotFoundError: the other store has none of that name.
        """

    def read(self, name: str) -> bytes:
        """Return an object.

        Raises:
            FileNotFoundError: there is none of this name.
        """

    def reading(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open an object for reading, at any place in it.

        Raises:
            FileNotFoundError: there is none of this name.
        """

    def has(self, name: str) -> bool:
        """Whether there is an object of this name."""

    def list(self, folder: str = "") -> list[str]:
        """Return the sorted names of all objects that begin with `folder/`, at any depth."""

    def delete(self, name: str) -> None:
        """Remove an object, if there is one."""

    def clear(self, folder: str) -> None:
        """Remove all objects that begin with `folder/`, and what a killed writer left half-written among them."""

    def place(self, name: str = "") -> str:
        """Return the path or URL of an object, or of the store, for people to read."""


def size_of(store: Store, name: str) -> int:
    """Return the size of an object in bytes.

    Raises:
        FileNotFoundError: there is none of this name.
    """
    with store.reading(name) as file:
        return file.seek(0, os.SEEK_END)


class FolderStore:
    """Objects in a folder, each a file that only its owner can read. A folder in there may be a link to another one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, content: bytes) -> None:
        """Write a file, which survives a loss of power from then on."""
        with self.writing(name) as file:
            file.write(content)

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Write a draft that gets the name of the file when the block has ended."""
        return replacing(self.path(name))

    def take(self, name: str, source: Store, theirs: str) -> None:
        """Use the same file where the other store is a folder and the disk allows it, else a copy."""
        if isinstance(source, FolderStore) and self._link(name, source.path(theirs).resolve()):
            return
        with source.reading(theirs) as original, self.writing(name) as copy:
            shutil.copyfileobj(original, copy)

    def _link(self, name: str, origin: Path) -> bool:
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(origin)
        except FileNotFoundError:
            raise
        except OSError:  # another disk, or one without hard links, or a file of another user
            return False
        return True

    def read(self, name: str) -> bytes:
        """Read a file."""
        return self.path(name).read_bytes()

    def reading(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file."""
        return self.path(name).open("rb")

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self.path(name).is_file()

    def list(self, folder: str = "") -> list[str]:
        """Find the files in a folder and in all folders in it."""
        walked = os.walk(self.path(folder), followlinks=True)
        found = (Path(inside) / name for inside, _, names in walked for name in names if not name.startswith(DRAFT))
        return sorted(path.relative_to(self._folder).as_posix() for path in found if path.is_file())

    def delete(self, name: str) -> None:
        """Remove a file, if there is one; a folder in a folder that is then empty goes too."""
        target = self.path(name)
        target.unlink(missing_ok=True)
        with suppress(OSError):  # the folder is not empty
            for folder in list(target.relative_to(self._folder).parents)[:-2]:
                (self._folder / folder).rmdir()

    def clear(self, folder: str) -> None:
        """Remove a folder with all that is in it."""
        with suppress(FileNotFoundError, NotADirectoryError):
            shutil.rmtree(self.path(folder))

    def place(self, name: str = "") -> str:
        """Return a path."""
        return str(self.path(name))

    def path(self, name: str) -> Path:
        """Return the path of a file or folder."""
        return self._folder / name
