from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.workers.conftest import write_lengths
from workers.contract.manifests import identity
from workers.contract.sources import CorpusError
from workers.corpus.rows import borders as borders_module
from workers.corpus.rows import index as index_module
from workers.corpus.rows.borders import Borders
from workers.corpus.rows.index import Index, Layout, open_index
from workers.corpus.shards import Shards

PLAIN, PACKED = (Layout(20, next_sentence=True, packing=packing) for packing in (False, True))
LENGTHS = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=12), min_size=1, max_size=12)
I64 = NDArray[np.int64]


def pieces_of(documents: list[list[int]], room: int) -> list[list[int]]:
    """Cut sentences that leave less than an eighth of the room into equal pieces of a quarter at most."""
    cut: list[list[int]] = []
    for lengths in documents:
        cut.append([])
        for length in lengths:
            most = max(1, room // 4)
            count = 1 if length <= room - max(1, room // 8) else (length + most - 1) // most
            cut[-1] += [length * (i + 1) // count - length * i // count for i in range(count)]
    return cut


def plain_rows(documents: list[list[int]], room: int) -> list[int]:
    """Fill rows with whole pieces of one document."""
    rows: list[int] = []
    piece = 0
    for lengths in documents:
        filled = room
        for length in lengths:
            if filled + length > room:
                rows.append(piece)
                filled = 0
            filled += length
            piece += 1
        filled = room
    return [*rows, piece]


def packed_rows(documents: list[list[int]], seq_len: int, special: int) -> list[int]:
    """Fill rows with whole pieces of any documents, each of them with its special tokens."""
    rows: list[int] = [0]
    piece, filled = 0, 0
    for lengths in documents:
        is_new = True
        for length in lengths:
            cost = max(length, 2) + special * is_new
            if filled + cost > seq_len:
                rows.append(piece)
                filled, cost = 0, max(length, 2) + special
            filled += cost
            piece, is_new = piece + 1, False
    return [*rows, piece]


@settings(max_examples=60)
@given(documents=LENGTHS, block=st.integers(1, 30), packing=st.booleans())
def test_rows_are_filled_greedily_whatever_the_size_of_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], block: int, packing: bool
) -> None:
    folder = write_lengths(tmp_path_factory.mktemp("text"), documents)
    with pytest.MonkeyPatch.context() as patch:
        for module in (borders_module, index_module):
            patch.setattr(module, "BLOCK", block)
        borders, rows = open_index(Shards(folder), PACKED if packing else PLAIN)
    pieces = pieces_of(documents, room=17)
    assert rows.tolist() == (packed_rows(pieces, 20, 3) if packing else plain_rows(pieces, 17))
    check(borders, pieces)


def check(borders: Borders, documents: list[list[int]]) -> None:
    lengths = [length for document in documents for length in document]
    numbers = np.arange(len(lengths) + 1)
    starts = np.cumsum([0, *lengths])
    assert len(borders) == len(lengths)
    assert borders.token(numbers).tolist() == starts.tolist()
    assert borders.document(numbers[:-1]).tolist() == [n for n, document in enumerate(documents) for _ in document]
    assert borders.first(np.arange(len(documents) + 1)).tolist() == np.cumsum([0, *map(len, documents)]).tolist()
    holders = [piece for piece, length in enumerate(lengths) for _ in range(length)]
    assert borders.at(np.arange(starts[-1])).tolist() == holders
    assert borders.documents == len(documents)


def times(folder: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]


def same(first: Index, second: Index) -> bool:
    return len(first.borders) == len(second.borders) and np.array_equal(first.rows, second.rows)


def test_an_index_is_made_once_and_then_found(tmp_path: Path) -> None:
    shards = Shards(write_lengths(tmp_path, [[5, 30, 6]] * 9))
    said: list[tuple[str, float]] = []
    first = open_index(shards, PLAIN, lambda what, done: said.append((what, done)))
    assert said == [("finding rows of 20 tokens", 1.0)]
    before = times(tmp_path / "rows-20-3")
    assert same(open_index(shards, PLAIN), first)
    assert times(tmp_path / "rows-20-3") == before


@pytest.mark.parametrize("damage", ["cut", "lost", "unreadable", "older", "of another text"])
def test_an_index_that_is_not_whole_is_made_anew(tmp_path: Path, damage: str) -> None:
    shards = Shards(write_lengths(tmp_path, [[5, 30, 6]] * 9))
    first = open_index(shards, PLAIN)
    expected = first._replace(rows=first.rows.copy())
    folder = tmp_path / "rows-20-3"
    manifest = (folder / "index.json").read_text()
    if damage == "cut":
        (folder / "rows.i64").write_bytes((folder / "rows.i64").read_bytes()[:-8])
    elif damage == "lost":
        (folder / "index.json").unlink()
    elif damage == "unreadable":
        (folder / "index.json").write_text("{")
    elif damage == "older":
        (folder / "index.json").write_text(manifest.replace('"format": 1', '"format": 0'))
    else:
        other = Shards(write_lengths(tmp_path / "other", [[5]] * 9))
        (folder / "index.json").write_text(manifest.replace(identity(shards.folder), "0" * 64))
        assert len(open_index(other, PLAIN).rows) != len(first.rows)
    assert same(open_index(shards, PLAIN), expected)
    assert (folder / "index.json").read_text() == manifest


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    shards = Shards(write_lengths(tmp_path, [[5, 30, 6]] * 9))
    (tmp_path / "rows-20-3.partial").mkdir()
    (tmp_path / "rows-20-3.partial" / "rows.i64").write_bytes(b"half")
    assert len(open_index(shards, PLAIN).rows) > 9
    assert not (tmp_path / "rows-20-3.partial").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    shards = Shards(write_lengths(tmp_path, [[5, 30, 6]] * 9))
    (tmp_path / "rows-20-3.lock").mkdir()
    with pytest.raises(CorpusError, match=r"rows-20-3: the index of its rows cannot be written .*make room"):
        open_index(shards, PLAIN)
