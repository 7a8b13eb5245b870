"""A store of whole objects: put, list, read and delete by name, and nothing else.

Today it is a folder; an object store can take its place, so nobody may append to an object, rename or lock one.
"""

import os
import shutil
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO

from workers.contract.files import DRAFT, replacing


class FolderStore:
    """Objects in a folder, each named by its path in there, such as `checkpoints/step-00000200-a1/manifest.json`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, content: bytes) -> None:
        """Store an object in place of what had this name, at once; only its owner can read it."""
        with self.writing(name) as file:
            file.write(content)

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Store what the block writes. The object is there, whole, once the block has ended without an error."""
        return replacing(self.path(name))

    def take(self, name: str, source: "FolderStore", theirs: str) -> None:
        """Store what another store has under the name `theirs`: the same file where the disk allows it, else a copy.

        Neither store can change or remove what the other has.

        Raises:
            FileNotFoundError: the other store has none of that name.
        """
        origin, target = source.path(theirs).resolve(), self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(origin)
        except FileNotFoundError:
            raise
        except OSError:  # another disk, or one without hard links, or a file of another user
            with origin.open("rb") as original, self.writing(name) as copy:
                shutil.copyfileobj(original, copy)

    def read(self, name: str) -> bytes:
        """Return an object.

        Raises:
            FileNotFoundError: there is none of this name.
        """
        return self.path(name).read_bytes()

    def has(self, name: str) -> bool:
        """Whether there is an object of this name."""
        return self.path(name).is_file()

    def list(self, folder: str = "") -> list[str]:
        """Return the sorted names of all objects that begin with `folder/`, at any depth; linked folders count too."""
        walked = os.walk(self.path(folder), followlinks=True)
        found = (Path(inside) / name for inside, _, names in walked for name in names if not name.startswith(DRAFT))
        return sorted(path.relative_to(self._folder).as_posix() for path in found if path.is_file())

    def delete(self, name: str) -> None:
        """Remove an object, if there is one; a folder in a folder that is then empty goes too."""
        target = self.path(name)
        target.unlink(missing_ok=True)
        with suppress(OSError):  # the folder is not empty
            for folder in list(target.relative_to(self._folder).parents)[:-2]:
                (self._folder / folder).rmdir()

    def clear(self, folder: str) -> None:
        """Remove all objects that begin with `folder/`, and what a killed writer left half-written among them."""
        with suppress(FileNotFoundError, NotADirectoryError):
            shutil.rmtree(self.path(folder))

    def path(self, name: str) -> Path:
        """Return the file or folder of a name, for programs that read and write files by themselves."""
        return self._folder / name
