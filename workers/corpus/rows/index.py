"""Where the rows of a corpus begin, found once for each length and kept beside the token shards.

- long.i64, pieces.i64: sentences that are cut, and the number of the first piece of each (`borders`)
- rows.i64: first piece of each row; one more: the number of pieces
- index.json: what there is; it is written last, and the folder gets its name after that

Whoever comes first makes the index, the others wait for it. All of it is mapped into memory, so the time to open it
does not grow with the text.
"""

import shutil
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from workers.contract.manifests import identity
from workers.contract.sources import CorpusError
from workers.corpus.build import Progress
from workers.corpus.hashes import locked
from workers.corpus.shards import Shards, sha256_of

from .borders import BLOCK, Borders, find_long

I64 = NDArray[np.int64]

INDEX_FORMAT = 1
"""Raise it whenever the same text would give other rows."""
_LONG, _PIECES, _ROWS, _MANIFEST = "long.i64", "pieces.i64", "rows.i64", "index.json"


class Layout(NamedTuple):
    """What decides where rows begin."""

    seq_len: int
    next_sentence: bool
    """Whether a sample has two segments."""
    packing: bool
    """Whether a row holds several samples."""

    @property
    def special(self) -> int:
        """Special tokens of a sample: [CLS] and a [SEP] after each segment."""
        return 3 if self.next_sentence else 2

    @property
    def room(self) -> int:
        """Tokens of text that a row of one sample takes."""
        return self.seq_len - self.special

    @property
    def folder(self) -> str:
        """Name of the folder that holds the index."""
        return f"rows-{self.seq_len}-{self.special}{'-packed' if self.packing else ''}"


class Index(NamedTuple):
    """The pieces of a text and the rows made of them."""

    borders: Borders
    rows: I64
    """First piece of each row, and the number of pieces. (rows + 1,)"""


class _Manifest(BaseModel):
    format: int
    corpus: str
    """Identity of the prepared corpus."""
    long: int
    pieces: int
    rows: int
    hashes: dict[str, str] | None = None
    """sha256 of each file; absent in those that older versions made."""


def open_index(shards: Shards, layout: Layout, progress: Progress | None = None) -> Index:
    """Return the index of a prepared corpus, making it if there is none.

    Raises:
        CorpusError: it cannot be written.
    """
    folder, corpus = shards.folder / layout.folder, identity(shards.folder)
    try:
        if not _is_whole(folder, corpus):
            with locked(folder.with_suffix(".lock")):
                if not _is_whole(folder, corpus):
                    _make(shards, layout, folder, corpus, progress or _silent)
    except OSError as error:
        raise CorpusError(f"{folder}: the index of its rows cannot be written ({error}); make room there") from error
    manifest = _Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
    return Index(_borders(shards, folder, manifest.pieces), _map(folder / _ROWS))


def verify(shards: Shards, layout: Layout) -> None:
    """Read the whole index and compare its files with their sha256.

    Raises:
        CorpusError: a file is not as it was written.
    """
    folder = shards.folder / layout.folder
    manifest = _Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
    for name, sha256 in _hashes(folder).items():
        if sha256 != (manifest.hashes or {}).get(name, sha256):
            raise CorpusError(f"{folder / name}: not the bytes that were written; delete {folder}")


def _hashes(folder: Path) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in (_LONG, _PIECES, _ROWS)}


def _is_whole(folder: Path, corpus: str) -> bool:
    try:
        found = _Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
        sizes = [(folder / name).stat().st_size // 8 for name in (_LONG, _PIECES, _ROWS)]
    except (OSError, ValidationError):
        return False
    return (found.format, found.corpus) == (INDEX_FORMAT, corpus) and sizes == [found.long, found.long, found.rows + 1]


def _make(shards: Shards, layout: Layout, folder: Path, corpus: str, report: Progress) -> None:
    draft = folder.with_suffix(".partial")
    for remains in (draft, folder):
        shutil.rmtree(remains, ignore_errors=True)
    draft.mkdir()
    try:
        pieces = _write_long(shards.sentences, layout.room, draft)
        borders = _borders(shards, draft, pieces)
        rows = 0
        with (draft / _ROWS).open("wb") as file:
            for starts in _row_starts(borders, layout, report):
                starts.tofile(file)
                rows += len(starts)
            np.array([pieces]).tofile(file)
        long = (draft / _LONG).stat().st_size // 8
        hashes = _hashes(draft)
        manifest = _Manifest(format=INDEX_FORMAT, corpus=corpus, long=long, pieces=pieces, rows=rows, hashes=hashes)
        (draft / _MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_long(sentences: I64, room: int, folder: Path) -> int:
    """Write the numbers of the long sentences; return how many pieces there are in all."""
    added = 0
    with (folder / _LONG).open("wb") as long_file, (folder / _PIECES).open("wb") as pieces_file:
        for long_L, count_L in find_long(sentences, room):
            before_L = added + np.cumsum(count_L - 1) - (count_L - 1)
            long_L.astype("<i8").tofile(long_file)
            (long_L + before_L).astype("<i8").tofile(pieces_file)
            added += int((count_L - 1).sum())
    return len(sentences) - 1 + added


def _row_starts(borders: Borders, layout: Layout, report: Progress) -> Iterator[I64]:
    """Fill rows greedily with whole pieces; yield the first piece of each row, block by block."""
    piece = 0
    for begin in range(0, len(borders), BLOCK):
        end = min(begin + BLOCK, len(borders))
        following = _following(borders, layout, begin, end)
        # Each row starts where the one before ends: a chain that only a loop can follow. Indexing a memoryview costs
        # a third of indexing an array, and no copy.
        step, starts = following.data, array("q")
        while piece < end:
            starts.append(piece)
            piece = step[piece - begin]
        report(f"finding rows of {layout.seq_len} tokens", end / len(borders))
        yield np.frombuffer(starts, np.int64)


def _following(borders: Borders, layout: Layout, begin: int, end: int) -> I64:
    """Return, for each piece from `begin` to `end`, where the row ends that it begins."""
    beyond = min(end + layout.seq_len, len(borders))
    token = borders.token(np.arange(begin, beyond + 1))
    first, last = borders.document(np.array([begin, beyond - 1]))
    starts = np.maximum(borders.first(np.arange(first, last + 2)), begin)
    counts = np.diff(np.minimum(starts, beyond))
    ends: I64
    if layout.packing:
        # A sample has a token in each of its segments, so a piece of one token takes the place of two.
        size = np.cumsum(np.maximum(np.diff(token), 2))
        document = np.repeat(np.arange(len(counts)), counts)
        before = np.append(0, size)[: end - begin] + layout.special * (document[: end - begin] - 1)
        ends = np.searchsorted(size + layout.special * document, before + layout.seq_len, side="right") + begin
    else:
        document_ends = np.repeat(starts[1:], counts)[: end - begin]
        ends = np.searchsorted(token[1:], token[: end - begin] + layout.room, side="right") + begin
        ends = np.minimum(ends, document_ends)
    return ends


def _borders(shards: Shards, folder: Path, pieces: int) -> Borders:
    return Borders(shards.sentences, shards.documents, _map(folder / _LONG), _map(folder / _PIECES), pieces)


def _map(path: Path) -> I64:
    if not path.stat().st_size:  # nothing to map
        return np.empty(0, np.int64)
    return np.asarray(np.memmap(path, "<i8", "r"))


def _silent(_what: str, _done: float) -> None:
    pass
