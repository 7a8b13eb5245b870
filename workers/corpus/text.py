"""Text files → documents. One paragraph a line, a blank line between documents, UTF-8."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from workers.contract.sources import CorpusError, is_compressed


def documents(path: Path, on_read: Callable[[int], None] | None = None) -> Iterator[list[str]]:
    """Yield each document of a file as its paragraphs, none of them empty.

    `on_read` is told, before each document, how many bytes of the file have been read.
    """
    paragraphs: list[str] = []
    with path.open("rb") as raw:
        for line in _lines(path, raw):
            if line:
                paragraphs.append(line)
            elif paragraphs:
                if on_read:
                    on_read(raw.tell())
                yield paragraphs
                paragraphs = []
    if paragraphs:
        yield paragraphs


def _lines(path: Path, raw: BinaryIO) -> Iterator[str]:
    stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if is_compressed(path) else raw
    offset = 0
    try:
        for line in stream:
            yield line.decode("utf-8-sig" if offset == 0 else "utf-8").strip()
            offset += len(line)
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path}: byte {offset + error.start:,} is not UTF-8 ({error.reason}); convert the file, "
            f"for example with `iconv -f latin1 -t utf-8`"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(
            f"{path}: broken gzip after byte {offset:,} of text ({error}); copy the file again"
        ) from error
