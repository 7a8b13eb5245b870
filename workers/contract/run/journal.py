"""`events.jsonl`: the records of a job, one JSON object a line, numbered without gaps over all attempts.

The file grows at its end and is never changed in place: to mend a line, the whole file is replaced.
"""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from workers.contract.records import AnyRecord, Record

from .lock import Lock, SupersededError
from .mending import Entry, read_entries, stand_in, written_by_others

_PUSH_BYTES = 512 * 1024  # the ingest route refuses bodies over 1 MiB


class Journal:
    """The records of a job as one attempt writes them. Any thread may call any method.

    Attributes:
        last_seq: Number of the last record.
    """

    def __init__(self, path: Path, rejected: Path, lock: Lock, attempt: int) -> None:
        self._path, self._rejected, self._lock, self._attempt = path, rejected, lock, attempt
        self._writing = threading.RLock()
        self._end = 0  # so many bytes are this attempt's, or were there when it began
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open()
        try:
            lock.check(attempt)
            self.last_seq = self._recover()
        except BaseException:
            self.close()
            raise

    def append(self, record: AnyRecord) -> Record:
        """Number and write one record.

        Raises:
            SupersededError: a newer attempt has taken the journal over.
        """
        with self._writing:
            self._check_place()
            record = record.model_copy(update={"seq": self.last_seq + 1})
            line = _as_line(record)
            self._file.write(line)
            self._file.flush()
            self.last_seq = record.seq
            self._end += len(line)
            if self._file.tell() > self._end:
                self._put_aside_what_others_wrote(line)
        return record

    def reject(self, seq: int, reason: str) -> None:
        """Copy record `seq` to `events.rejected`, and put an alert with the same number in its place.

        Raises:
            SupersededError: a newer attempt has taken the journal over.
        """
        alert = stand_in(seq, reason).model_dump_json().encode() + b"\n"

        def write(draft: BinaryIO) -> None:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if number == seq:
                        self._keep(line)
                        self._end += len(alert) - len(line)
                    draft.write(alert if number == seq else line)

        with self._writing:
            self._check_place()
            self._replace(write)

    def sync(self) -> None:
        """Have everything that was written survive a loss of power."""
        with self._writing:
            descriptor = os.dup(self._file.fileno())
        try:
            os.fdatasync(descriptor)  # it may take long, and must not block those who write
        finally:
            os.close(descriptor)

    def after(self, seq: int) -> list[bytes]:
        """Return whole lines after number `seq`, as many as one push may hold: what this attempt reads and wrote."""
        with self._writing:
            # A further line is of another process, and has no number.
            return self._lines.after(seq)[: max(self.last_seq - seq, 0)]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._lines.close()

    def _open(self) -> None:
        self._file, self._lines = self._path.open("ab+"), Lines(self._path.open("rb"))

    def _recover(self) -> int:
        """Cut off a line that a killed writer left unfinished, mend what cannot be read, and return the last number."""
        self._file.seek(0)
        last, end, is_whole = 0, 0, True
        for entry in read_entries(self._file):
            last = entry.record.seq
            is_whole = is_whole and entry.line is not None and not entry.rejected
            end += len(entry.line or b"")
        if is_whole and self._is_end_of_line(end):
            self._end = self._file.truncate(end)
        else:
            self._mend()
            self._end = self._path.stat().st_size
        return last

    def _is_end_of_line(self, end: int) -> bool:
        """Tell whether the records are one a line: where an end of line is missing, their lengths lead too far."""
        self._file.seek(max(end - 1, 0))
        return end == 0 or self._file.read(1) == b"\n"

    def _mend(self) -> None:
        def write(draft: BinaryIO) -> None:
            self._file.seek(0)
            for entry in read_entries(self._file):
                self._keep(*entry.rejected)
                draft.write(_line(entry))

        self._replace(write)

    def _put_aside_what_others_wrote(self, line: bytes) -> None:
        """Move to `events.rejected` what stands around the last line and is not of this attempt, and add an alert."""
        end = self._end - len(line)
        self._file.seek(end)
        before, _, behind = self._file.read().rpartition(line)
        foreign = before + behind
        self._keep(foreign if foreign.endswith(b"\n") else foreign + b"\n")
        self.last_seq += 1
        alert = _as_line(written_by_others(self.last_seq, len(foreign)))

        def write(draft: BinaryIO) -> None:
            with self._path.open("rb") as file:
                shutil.copyfileobj(file, draft)
            draft.truncate(end)
            draft.seek(end)
            draft.write(line + alert)

        self._replace(write)
        self._end += len(alert)

    def _replace(self, write: Callable[[BinaryIO], None]) -> None:
        self._lock.replace(self._path, self._attempt, write)
        self.close()
        self._open()
        self._lock.check(self._attempt)

    def _keep(self, *lines: bytes) -> None:
        if lines:
            with self._rejected.open("ab") as file:
                file.writelines(lines)

    def _check_place(self) -> None:
        """Notice that a newer attempt put its own file in place, and write no further."""
        try:
            in_place = os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            in_place = False
        if not in_place:
            self._lock.check(self._attempt)
            raise SupersededError(f"{self._path} was replaced or removed while attempt {self._attempt} wrote it")


def renew(path: Path, lock: Lock, attempt: int) -> None:
    """Put a copy of the journal's whole lines in place of what lower attempts write; `attempt` has the lock.

    Raises:
        SupersededError: a newer attempt has begun.
    """
    if not path.exists():
        return

    def copy(draft: BinaryIO) -> None:
        with path.open("rb") as file:
            draft.writelines(line for line in file if line.endswith(b"\n"))

    lock.replace(path, attempt, copy)


def _as_line(record: Record) -> bytes:
    return record.model_dump_json().encode() + b"\n"


def _line(entry: Entry) -> bytes:
    return _as_line(entry.record) if entry.line is None else entry.line


class Lines:
    """Reads a growing file of numbered lines; remembers where the next one begins."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset, self._seq = 0, 0  # the line after number _seq begins at _offset

    def after(self, seq: int) -> list[bytes]:
        """Return whole lines after number `seq`, as many as one push may hold."""
        self._move_behind(seq)
        self._file.seek(self._offset)
        block = self._file.read(_PUSH_BYTES)
        whole = block[: block.rfind(b"\n") + 1]
        # bytes.splitlines would also split at a carriage return, which is a blank in JSON.
        return (whole or self._one_long_line(block)).split(b"\n")[:-1]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _move_behind(self, seq: int) -> None:
        if seq < self._seq:  # the control plane lost records and asks for them again
            self._offset, self._seq = 0, 0
        self._file.seek(self._offset)
        while self._seq < seq and self._file.readline().endswith(b"\n"):
            self._offset, self._seq = self._file.tell(), self._seq + 1

    def _one_long_line(self, block: bytes) -> bytes:
        line = block + self._file.readline() if block else b""
        return line if line.endswith(b"\n") else b""
