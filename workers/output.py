"""What a process prints, kept in the run folder too, while Ray shows it as before.

Ray has each of its processes print into a file of its session, which is removed sooner or later. A small process beside
the printing one copies that file as it grows. So nothing changes for the one that prints: it never waits for the copy,
and its last words are copied even where it was killed. As a program, this file is that copying process.
"""

import contextlib
import fcntl
import io
import os
import secrets
import select
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HALF_BYTES = 5_000_000
"""A log that has reached this size becomes the older half, in the place of the one before, and a new half is begun."""
POLL_S = 0.25
_PIECE = 2**16
_MARKS = (b":job_id:", b":actor_name:", b":task_name:")
"""Lines that begin like this are notes of Ray to itself."""


def keep(log: Path, older: Path) -> None:
    """Have what this process prints, and has printed, copied to `log` until it ends; what is older goes to `older`.

    The copying process holds a lock on `log` for as long. A failure to begin is told on stderr and changes nothing.
    """
    sources = _files_printed_to()
    end, _open_until_this_process_ends = os.pipe()  # the latter is never closed: its end is how the other one knows
    command = [sys.executable, "-I", "-S", __file__, str(log), str(older), *map(str, sources)]
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        subprocess.run(command, stdin=end, stdout=2, pass_fds=sources, start_new_session=True, check=False)
    except OSError as error:
        sys.stderr.write(f"what this process prints is not kept in {log}: {error}\n")
    finally:
        for descriptor in (end, *sources):
            os.close(descriptor)


def _files_printed_to() -> list[int]:
    """Open the files that stdout and stderr go to, each once, to be read from their beginnings."""
    found: dict[tuple[int, int], int] = {}
    for printed in (1, 2):
        with contextlib.suppress(OSError):
            status = os.fstat(printed)
            if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in found:
                found[status.st_dev, status.st_ino] = os.open(f"/proc/self/fd/{printed}", os.O_RDONLY)
    return list(found.values())


class _Copy:
    """The log as its only writer sees it."""

    def __init__(self, log: Path, older: Path) -> None:
        self._log, self._older = log, older
        self._file = self._begin()
        self._trouble: OSError | None = None

    def add(self, text: bytes) -> None:
        """Write lines; what cannot be written is left out, and the log says so once it can be written again."""
        try:
            if self._trouble is not None:
                self._file.write(f"bigbatch: lines are missing here: {self._trouble}\n".encode())
                self._trouble = None
            self._file.write(text)
            if self._file.tell() >= HALF_BYTES:
                self._turn()
        except OSError as error:
            self._trouble = error

    def _turn(self) -> None:
        self._older.unlink(missing_ok=True)
        os.link(self._log, self._older)
        full, self._file = self._file, self._begin()
        full.close()

    def _begin(self) -> io.FileIO:
        """Put an empty file in the log's place, locked before anybody can see it."""
        draft = self._log.with_name(f".draft-{self._log.name}.{secrets.token_hex(4)}")
        file = io.FileIO(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
        fcntl.flock(file, fcntl.LOCK_EX)
        draft.replace(self._log)
        return file


class _Source:
    """A file that grows, read in whole lines, so that those of two files do not mix."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._rest = descriptor, b""

    def copy_to(self, copy: _Copy, *, is_last: bool) -> None:
        """Copy what is new, and of a line that has not ended yet only what is long or last."""
        while piece := os.read(self._descriptor, _PIECE):
            self._rest += piece
            end = self._rest.rfind(b"\n") + 1 or len(self._rest) * (len(self._rest) >= _PIECE)
            self._pass_on(copy, end)
        if is_last and self._rest:
            self._rest += b"\n"
            self._pass_on(copy, len(self._rest))

    def _pass_on(self, copy: _Copy, end: int) -> None:
        lines, self._rest = self._rest[:end], self._rest[end:]
        if any(mark in lines for mark in _MARKS):
            lines = b"".join(line for line in lines.splitlines(keepends=True) if not line.startswith(_MARKS))
        if lines:
            copy.add(lines)


def main(log: str, older: str, *descriptors: str) -> None:
    """Copy from descriptors to a log until stdin ends; return at once, once the log is there."""
    copy = _Copy(Path(log), Path(older))
    if not descriptors:
        copy.add(b"bigbatch: this process does not print into a file, so what it prints is not kept here\n")
        return
    if os.fork():  # as nobody's child it is not killed together with the process that started it
        os._exit(0)
    sources = [_Source(int(each)) for each in descriptors]
    has_ended = False
    while not has_ended:
        has_ended = bool(select.select([0], [], [], POLL_S)[0])
        for source in sources:
            source.copy_to(copy, is_last=has_ended)


def _program(arguments: Sequence[str]) -> int:
    try:
        main(*arguments)
    except OSError as error:
        sys.stderr.write(f"what a process prints is not kept in {arguments[0]}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_program(sys.argv[1:]))
