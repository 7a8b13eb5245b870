"""Text files → documents → sentences. One paragraph a line, a blank line between documents, UTF-8."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from .errors import CorpusError

BUILTIN = {name: Path(__file__).with_name(f"{name.replace('-', '_')}.txt.gz") for name in ("austen", "austen-valid")}
SUFFIXES = (".txt", ".txt.gz")

# The word before the dot, lower-case, that seldom ends a sentence. Words that often do ("etc", "no") are left out.
_TITLES = "mr mrs ms dr st sr jr prof rev hon esq gen col capt lt sgt maj cpl gov sen rep pres messrs mme mlle"
_REFERENCES = "vs cf e.g i.e viz vol ch pp fig figs eq approx dept est inc ltd co corp bros u.s u.k a.m p.m"
_MONTHS = "jan feb mar apr jun jul aug sept oct nov dec"
ABBREVIATIONS = frozenset(f"{_TITLES} {_REFERENCES} {_MONTHS}".split())
# A stop, whatever closes the quotation, blanks; then whatever opens the next one and its first letter or digit.
_CLOSE, _OPEN = r"""["'”\u2019»)\]]*""", r"""["'“\u2018«(\[—_]*"""
BORDER = re.compile(rf"([.!?…]){_CLOSE}\s+(?={_OPEN}(\w))")
LAST_WORD = re.compile(r"[^\W\d_](?:[\w.]*[^\W\d_])?$")


def resolve(source: str) -> Path:
    """Turn `builtin:NAME`, a file or a directory into a path that exists."""
    if source.startswith("builtin:"):
        name = source.removeprefix("builtin:")
        if name not in BUILTIN:
            known = ", ".join(f"builtin:{known}" for known in BUILTIN)
            raise CorpusError(f"{source}: no such built-in corpus; there are {known}")
        return BUILTIN[name]
    path = Path(source).expanduser()
    if not path.exists():
        raise CorpusError(f"{source}: no such file or directory below {Path.cwd()}; correct data.corpus")
    return path


def text_files(sources: Sequence[str]) -> list[Path]:
    """Return every text file that the sources name, those of a directory in the order of their names."""
    files: list[Path] = []
    for source in sources:
        path = resolve(source)
        found = sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES)) if path.is_dir() else [path]
        if not found or not all(p.name.endswith(SUFFIXES) for p in found):
            raise CorpusError(f"{source}: holds no text; give a {' or '.join(SUFFIXES)} file or a directory of these")
        files += found
    if not files:
        raise CorpusError("data.corpus is empty; name a text file, a directory or builtin:austen")
    return files


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
    stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
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
        raise CorpusError(f"{path}: broken gzip after byte {offset:,} of text ({error}); copy the file anew") from error


def split_sentences(paragraph: str) -> list[str]:
    """Split a paragraph behind `.`, `!`, `?` and `…`, but not behind abbreviations, initials or before lower case."""
    sentences, start = [], 0
    for border in BORDER.finditer(paragraph):
        if border[2].islower() or (border[1] == "." and _abbreviates(paragraph[start : border.start()])):
            continue
        sentences.append(paragraph[start : border.end()].strip())
        start = border.end()
    if rest := paragraph[start:].strip():
        sentences.append(rest)
    return sentences


def _abbreviates(before: str) -> bool:
    # No abbreviation is longer than 24 characters, and the search from the start of a long sentence costs.
    word = LAST_WORD.search(before[-24:])
    return word is not None and (word[0].lower() in ABBREVIATIONS or (len(word[0]) == 1 and word[0] not in "Ia"))
