"""A folder of files as one tar archive, sent while it is read: its size is known before, and nothing is stored."""

import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

_CHUNK = 2**20
_BLOCK = tarfile.BLOCKSIZE


class Archive:
    """The files of a folder, open from the beginning, so that a folder that is replaced meanwhile is sent as it was.

    Attributes:
        size_bytes: Of the archive.
    """

    def __init__(self, folder: Path, files: Mapping[str, int], inside: str) -> None:
        """Open the files; raise FileNotFoundError where one is gone.

        Args:
            folder: where they are.
            files: their names, and their sizes in bytes.
            inside: the folder in the archive.
        """
        self._open = ExitStack()
        self._parts: list[tuple[bytes, BinaryIO, int]] = []
        try:
            for name, size_bytes in files.items():
                file = self._open.enter_context((folder / name).open("rb"))
                self._parts.append((_header(f"{inside}/{name}", size_bytes), file, size_bytes))
        except BaseException:
            self._open.close()
            raise
        self.size_bytes = sum(len(header) + size + _padding(size) for header, _, size in self._parts) + 2 * _BLOCK

    def chunks(self) -> Iterator[bytes]:
        """Yield the archive, and close the files."""
        with self._open:
            for header, file, size_bytes in self._parts:
                yield header
                left = size_bytes
                while left:
                    chunk = file.read(min(left, _CHUNK))
                    if not chunk:
                        raise EOFError(f"{file.name} is shorter than was told: the last {left} bytes are missing")
                    left -= len(chunk)
                    yield chunk
                yield bytes(_padding(size_bytes))
            yield bytes(2 * _BLOCK)


def _header(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size_bytes: int) -> int:
    return -size_bytes % _BLOCK
