"""Reading a journal in which some lines cannot be read: no record that is readable is lost, and no number left out."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from pydantic import ValidationError

from workers.contract.records import RECORD, AlertRecord, Record

_SHORTEST_LINE = 60
"""No record is shorter, in bytes. This limits how many numbers can be lost in a piece that cannot be read."""

_MOST_MISSING = 1_000_000
"""A number that skips more than these is wrong, whatever the next line says, for each skipped number takes an alert."""

_BEGIN = b'{"seq":'
_BEGINNING = re.compile(_BEGIN)
_NUMBER = re.compile(_BEGIN + rb"([1-9]\d{0,17}),")


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of a journal."""

    record: Record
    line: bytes | None
    """As it stands in the file; None where the record takes the place of what could not be read."""
    rejected: tuple[bytes, ...] = ()
    """Lines that could not be read and are left out at this place."""


def read_entries(lines: Iterable[bytes], after: int = 0) -> Iterator[Entry]:
    """Read the records after number `after`, up to a last line that a killed writer left unfinished.

    Where numbers are missing, and at the end where lines could not be read though none is missing, alerts stand in. A
    line counts as read if its number is the next one, or if the lost lines before it or the line after it explain why
    it is not: one wrong digit must not make all that follows look wrong.
    """
    reader = _Reader(after)
    for line in _behind(lines, after):
        for piece in _pieces(line):
            yield from reader.take(piece)
    yield from reader.end()


def _pieces(line: bytes) -> Iterator[bytes]:
    """Part a record from what was left before it without an end: a torn line, the NULs of a lost block, a record.

    Inside of a record's texts, the quotation marks of what begins a record would be escaped.
    """
    starts = [match.start() for match in _BEGINNING.finditer(line, 1)]
    if not starts or _parse(line) is not None:
        yield line
        return
    for start, end in pairwise([0, *starts]):
        yield line[start:end] + b"\n"
    yield line[starts[-1] :]


def _behind(lines: Iterable[bytes], after: int) -> Iterator[bytes]:
    """Leave out the lines up to number `after`, without reading them further than their number."""
    begun, unread = False, list[bytes]()
    for line in lines:
        if not line.endswith(b"\n"):
            break
        number = None if begun else _NUMBER.match(line)
        if begun:
            yield line
        elif number is None:
            unread.append(line)
        elif int(number[1]) <= after:
            unread.clear()
        else:
            begun = True
            yield from [*unread, line]
    if not begun:
        yield from unread


class _Reader:
    def __init__(self, after: int) -> None:
        self._after, self._next = after, after + 1
        self._held: tuple[Record, bytes] | None = None  # the last line that could be read, until the one after it
        self._lost: list[bytes] = []  # what could not be read since the last number
        self._behind: list[bytes] = []  # what could not be read since the held line
        self._without_number = False

    def take(self, line: bytes) -> Iterator[Entry]:
        record = _parse(line)
        if record is None:
            (self._lost if self._held is None else self._behind).append(line)
            return
        yield from self._decide(following=record.seq)
        self._held = record, line

    def end(self) -> Iterator[Entry]:
        yield from self._decide(following=None)
        if self._lost or self._without_number:
            yield self._stand_in()

    def _decide(self, following: int | None) -> Iterator[Entry]:
        if self._held is None:
            return
        record, line = self._held
        if record.seq <= self._after and self._next == self._after + 1:
            self._lost.clear()  # these numbers are known already
        elif record.seq == self._next or (record.seq > self._next and self._explains(record.seq, following)):
            while self._next < record.seq:
                yield self._stand_in()
            yield self._entry(Entry(record, line, self._take_lost()))
        else:
            self._lost.append(line)
        self._held, self._behind = None, self._move_behind()

    def _move_behind(self) -> list[bytes]:
        self._lost += self._behind
        return []

    def _explains(self, seq: int, following: int | None) -> bool:
        room = max(len(self._lost), sum(map(len, self._lost)) // _SHORTEST_LINE)
        missing = seq - self._next
        return missing <= room or (following == seq + 1 and missing <= _MOST_MISSING)

    def _stand_in(self) -> Entry:
        self._without_number = False
        alert = stand_in(self._next, "it, or what stood before it, could not be read")
        return self._entry(Entry(alert, None, tuple(self._lost)))

    def _entry(self, entry: Entry) -> Entry:
        self._next = entry.record.seq + 1
        self._lost = []
        return entry

    def _take_lost(self) -> tuple[bytes, ...]:
        self._without_number = self._without_number or bool(self._lost)
        return tuple(self._lost)


def _parse(line: bytes) -> Record | None:
    try:
        return RECORD.validate_json(line)
    except ValidationError:
        return None


def stand_in(seq: int, reason: str) -> AlertRecord:
    """Return the alert that takes the place of a record that was lost or refused."""
    detail = (
        f"Record {seq} is replaced by this alert: {reason}. What there was is in events.rejected in the run folder."
    )
    return _alert(seq, detail)


def written_by_others(seq: int, size: int) -> AlertRecord:
    """Return the alert that tells of bytes that another process wrote into the journal of a run."""
    detail = (
        f"Another process wrote {size:,} bytes into events.jsonl in the run folder. No record was lost; the bytes are "
        "in events.rejected beside it. Let nothing but the run write that file."
    )
    return _alert(seq, detail)


def _alert(seq: int, detail: str) -> AlertRecord:
    return AlertRecord(seq=seq, time=datetime.now(UTC), level="error", title="The journal was mended", detail=detail)
