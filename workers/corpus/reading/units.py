"""Units of work: parts of text files that are read on their own, in any order and on any machine.

How text is cut changes nothing in what is made of it: what the units give is put together in the order of the text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workers.contract.text_files import TextFile

from . import tables

LEAST_BYTES, MOST_BYTES = 2**19, 2**22
"""About so much text makes a unit: a few tenths of a second to a few seconds of tokenizing."""
FEWEST = 256
"""A text is cut into so many units unless they are too small, so that all processes end at about the same time."""
MOST_CUTS = 16
"""A unit of a compressed file is reached by decompressing all before it, so such a file has at most this many."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The lines that begin in `begin` … `end` of a file's text, in bytes; of a Parquet file, these row groups."""

    file: TextFile
    begin: int
    end: int
    size_bytes: int
    """Of its text, about."""
    is_last: bool
    """Whether the file, and so a document, ends with it."""


def cut(files: Sequence[TextFile], sizes_bytes: Sequence[int], unit_bytes: int | None = None) -> list[Unit]:
    """Cut files, whose text has these sizes, into units of about `unit_bytes`, in the order of the text.

    Without `unit_bytes`, the size of the text decides: how it is cut must not depend on the processes, since what one
    preparation has done is used by the next.

    Raises:
        CorpusError: a Parquet file cannot be read.
    """
    if unit_bytes is None:
        unit_bytes = min(max(sum(sizes_bytes) // FEWEST, LEAST_BYTES), MOST_BYTES)
    units: list[Unit] = []
    for file, size_bytes in zip(files, sizes_bytes, strict=True):
        parts = list(_parts(file, size_bytes, unit_bytes))
        units += [
            Unit(file, begin, end, size, is_last=number == len(parts))
            for number, (begin, end, size) in enumerate(parts, start=1)
        ]
    return units


def _parts(file: TextFile, size_bytes: int, unit_bytes: int) -> Iterator[tuple[int, int, int]]:
    if file.kind == "parquet":
        yield from _groups(tables.group_sizes(file), unit_bytes)
        return
    step = unit_bytes
    if file.compression:
        step = max(unit_bytes, size_bytes if file.is_remote else -(-size_bytes // MOST_CUTS))
    for begin in range(0, max(size_bytes, 1), step):
        end = min(begin + step, size_bytes)
        yield begin, end, end - begin


def _groups(sizes_bytes: Sequence[int], unit_bytes: int) -> Iterator[tuple[int, int, int]]:
    begin, size = 0, 0
    for end, group in enumerate(sizes_bytes, start=1):
        size += group
        if size >= unit_bytes or end == len(sizes_bytes):
            yield begin, end, size
            begin, size = end, 0
