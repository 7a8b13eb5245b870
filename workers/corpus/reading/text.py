"""Text files → documents and their paragraphs.

- .txt: one paragraph a line, a blank line between documents
- .jsonl: one document a line, an object whose `text_column` holds the text, one paragraph a line of it
- .parquet: one document a row, in the same way

All are UTF-8.
"""

import json
import zlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from workers.contract.sources import CorpusError
from workers.contract.text_files import TextFile

from . import tables
from .units import Unit

_REMEDY = (
    "convert the file, for example with `iconv -f latin1 -t utf-8`, or write data.encoding_errors: replace to read "
    "each such byte as U+FFFD"
)


class Reading(NamedTuple):
    """How the bytes of files become text."""

    encoding_errors: Literal["refuse", "replace"] = "refuse"
    text_column: str = "text"
    """Of the objects of a .jsonl file, and of the rows of a .parquet file."""


def paragraphs(unit: Unit, reading: Reading) -> Iterator[str | None]:
    """Yield the paragraphs of a unit, none of them empty, and None wherever a document ends.

    Raises:
        CorpusError: the file cannot be read; the message names it, the byte or the row, and the remedy.
    """
    if unit.file.kind == "txt":
        for offset, line in lines(unit.file, unit.begin, unit.end):
            yield _decode(unit.file, "byte", offset, line, reading).strip() or None
    else:
        for text in _texts(unit, reading):
            yield from filter(None, map(str.strip, text.split("\n")))
            yield None
    if unit.is_last:
        yield None


def lines(file: TextFile, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that begin in `begin` … `end` of the text of a file, each after its own offset in bytes.

    Raises:
        CorpusError: the file cannot be read, or its compression is broken.
    """
    offset = begin
    try:
        with file.reading() as stream:
            if begin:
                _skip(stream, begin - 1)
                offset += len(stream.readline()) - 1  # what is left of the line that begins before
            if offset >= end:
                return
            for line in stream:
                yield offset, line
                offset += len(line)
                if offset >= end:
                    return
    except (EOFError, OSError, zlib.error) as error:
        raise _unreadable(file, offset, error) from error


def measure(file: TextFile) -> int:
    """Return the size of a file's text, in bytes, decompressed; of a Parquet file, its own size.

    Raises:
        CorpusError: the file cannot be read, or its compression is broken.
    """
    if not file.compression:
        return file.state().size_bytes
    size_bytes = 0
    try:
        with file.reading() as stream:
            while chunk := stream.read(2**20):
                size_bytes += len(chunk)
    except (EOFError, OSError, zlib.error) as error:
        raise _unreadable(file, size_bytes, error) from error
    return size_bytes


def _unreadable(file: TextFile, offset: int, error: Exception) -> CorpusError:
    if file.compression:
        what = {"gz": "gzip", "zst": "zstd"}[file.compression]
        return CorpusError(f"{file}: broken {what} after byte {offset:,} of text ({error}); copy the file again")
    return CorpusError(f"{file}: cannot be read after byte {offset:,} ({error}); check the file and its permissions")


def _skip(stream: Any, size_bytes: int) -> None:
    if stream.seekable():
        stream.seek(size_bytes)
        return
    while size_bytes > 0 and (chunk := stream.read(min(size_bytes, 2**20))):
        size_bytes -= len(chunk)


def _texts(unit: Unit, reading: Reading) -> Iterator[str]:
    file = unit.file
    if file.kind == "parquet":
        for row, text in tables.texts(file, unit.begin, unit.end, reading.text_column):
            yield _decode(file, f"row {row:,}, byte", 0, text, reading)
        return
    for offset, line in lines(file, unit.begin, unit.end):
        if decoded := _decode(file, "byte", offset, line, reading).strip():
            yield _value(file, offset, decoded, reading)


def _decode(file: TextFile, place: str, offset: int, content: bytes, reading: Reading) -> str:
    encoding = "utf-8" if offset or place != "byte" else "utf-8-sig"
    try:
        return content.decode(encoding, "strict" if reading.encoding_errors == "refuse" else "replace")
    except UnicodeDecodeError as error:
        at = offset + error.start + len(content) - len(error.object)  # without the byte order mark
        raise CorpusError(f"{file}: {place} {at:,} is not UTF-8 ({error.reason}); {_REMEDY}") from error


def _value(file: TextFile, offset: int, line: str, reading: Reading) -> str:
    """Return the text of one line of a .jsonl file."""
    where = f"{file}: the line at byte {offset:,}"
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where} is not JSON ({error}); correct it") from error
    if not isinstance(document, dict):
        raise CorpusError(f"{where} is not a JSON object; write one with the key {reading.text_column!r}")
    if reading.text_column not in document:
        raise CorpusError(
            f"{where} has no {reading.text_column!r}, its keys are {', '.join(document)}; write data.text_column"
        )
    text = document[reading.text_column]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise CorpusError(f"{where} has {str(text)[:40]!r} as {reading.text_column!r}, which is not text; correct it")
    return _without_surrogates(where, text, reading)


def _without_surrogates(where: str, text: str, reading: Reading) -> str:
    r"""Refuse or replace halves of a character, which JSON can write as `\ud83d` and UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if reading.encoding_errors == "refuse":
            half = f"\\u{ord(text[error.start]):04x}"
            raise CorpusError(f"{where} has {half}, half of a character; {_REMEDY}") from error
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text
