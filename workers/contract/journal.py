"""`events.jsonl`: the records of a job, one JSON object a line, numbered without gaps over all attempts."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from .records import RECORD, Record

_PUSH_BYTES = 512 * 1024  # the ingest route refuses bodies over 1 MiB


class Journal:
    """The records of a job, one JSON object a line, numbered without gaps over all attempts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab+")
        self.last_seq = self._recover()

    def append(self, kind: str, **fields: Any) -> Record:
        """Number, check and write one record."""
        stamp = {"seq": self.last_seq + 1, "time": datetime.now(UTC), "kind": kind}
        record = RECORD.validate_python(stamp | fields)
        self._file.write(record.model_dump_json().encode() + b"\n")
        self._file.flush()
        self.last_seq = record.seq
        return record

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _recover(self) -> int:
        """Cut off a line that a killed writer left unfinished, and return the last number."""
        self._file.seek(0)
        end, last = 0, b""
        for line in self._file:
            if line.endswith(b"\n"):
                end, last = end + len(line), line
        self._file.truncate(end)
        return int(json.loads(last)["seq"]) if last else 0


class Lines:
    """Reads a growing file of numbered lines; remembers where the next one begins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset, self._seq = 0, 0  # the line behind number _seq begins at _offset

    def after(self, seq: int) -> list[bytes]:
        """Return whole lines behind number `seq`, as many as one push may hold."""
        with self._path.open("rb") as file:
            self._move_behind(seq, file)
            file.seek(self._offset)
            block = file.read(_PUSH_BYTES)
            whole = block[: block.rfind(b"\n") + 1]
            return (whole or self._one_long_line(block, file)).splitlines()

    def _move_behind(self, seq: int, file: BinaryIO) -> None:
        if seq < self._seq:  # the control plane lost records and asks for them again
            self._offset, self._seq = 0, 0
        file.seek(self._offset)
        while self._seq < seq and file.readline().endswith(b"\n"):
            self._offset, self._seq = file.tell(), self._seq + 1

    @staticmethod
    def _one_long_line(block: bytes, file: BinaryIO) -> bytes:
        line = block + file.readline() if block else b""
        return line if line.endswith(b"\n") else b""
