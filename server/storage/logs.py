"""What a process of a run printed, read from the end of its file and on as the file grows."""

import fcntl
import io
import os
from pathlib import Path
from typing import Self

from workers.contract.run.folder import older_half

_MOST_BYTES = 2**20
_PIECE_BYTES = 2**16


class Log:
    """A log, open for reading, whether its process still runs or not."""

    def __init__(self, path: Path) -> None:
        """Open it; raise FileNotFoundError where there is none."""
        self._path, self._file = path, path.open("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tail(self, lines: int) -> bytes:
        """Return the last lines, of at most a megabyte; what follows on them is read next."""
        text = _end(self._file, _MOST_BYTES)
        try:
            with older_half(self._path).open("rb") as older:
                text = _end(older, _MOST_BYTES - len(text)) + text
        except FileNotFoundError:
            pass
        if len(text) == _MOST_BYTES:  # it may begin within a line
            text = text[text.find(b"\n") + 1 :]
        return b"".join(io.BytesIO(text).readlines()[-lines:]) if lines else b""

    def more(self) -> bytes | None:
        """Return a piece of what was added since; nothing where nothing was yet, None where nothing will be."""
        has_ended = self._has_ended()  # asked first: what is there afterwards is the rest
        is_replaced = self._is_replaced()
        piece = self._file.read(_PIECE_BYTES)
        if piece or not (is_replaced or has_ended):
            return piece
        if not is_replaced:
            return None
        try:
            newer = self._path.open("rb")
        except FileNotFoundError:  # the job was deleted
            return None
        self._file.close()
        self._file = newer
        return self._file.read(_PIECE_BYTES)

    def _has_ended(self) -> bool:
        """Whether nobody writes the file any more: whoever does has a lock on it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return True

    def _is_replaced(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True


def _end(file: io.BufferedReader, size_bytes: int) -> bytes:
    """Read the end of a file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - size_bytes))
    return file.read(size_bytes)
