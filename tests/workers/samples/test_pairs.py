import math
import random
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.workers.conftest import Data, write_lengths, write_positions
from workers.contract.sources import CorpusError
from workers.corpus.prepare import prepare
from workers.corpus.rows.index import Layout, open_index
from workers.corpus.shards import Shards
from workers.samples.pairs import Chunks, Pairs

LENGTHS = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=9), min_size=1, max_size=9)


def greedy(documents: list[list[int]], room: int) -> list[range]:
    """Cut documents into chunks of sentences, one after the other."""
    chunks, first = [], 0
    for lengths in documents:
        start, filled = first, 0
        for sentence, length in enumerate(lengths, first):
            if sentence > start and filled + length > room:
                chunks.append(range(start, sentence))
                start, filled = sentence, 0
            filled += length
        chunks.append(range(start, first + len(lengths)))
        first += len(lengths)
    return chunks


def pieces(length: int, room: int) -> list[int]:
    """Cut a sentence that leaves less than an eighth of the room into pieces of a quarter at most."""
    if length <= room - max(1, room // 8):
        return [length]
    n = math.ceil(length / max(1, room // 4))
    borders = [length * i // n for i in range(n + 1)]
    return [b - a for a, b in pairwise(borders)]


def chunks_of(folder: Path, room: int, short: float = 0.0) -> Chunks:
    index = open_index(Shards(folder), Layout(room + 3, next_sentence=True, packing=False))
    return Chunks(index, room, short)


def shown(pairs: Pairs, tokens: int) -> NDArray[np.bool_]:
    """Return which tokens of a corpus stand in any of the pairs."""
    changes = np.zeros(tokens + 1, np.int64)
    for first, length in ((pairs.a, pairs.a_length), (pairs.b, pairs.b_length)):
        np.add.at(changes, first, 1)
        np.add.at(changes, first + length, -1)
    return np.cumsum(changes)[:-1] > 0


@given(documents=LENGTHS, room=st.integers(5, 60), seed=st.integers(0, 2**64 - 1))
def test_every_pair_is_what_the_rules_say(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], room: int, seed: int
) -> None:
    documents.append([3, 4])
    chunks = chunks_of(write_positions(tmp_path_factory.mktemp("pairs"), documents), room)
    documents = [[piece for n in lengths for piece in pieces(n, room)] for lengths in documents]
    cuts = list(accumulate((n for lengths in documents for n in lengths), initial=0))
    ends = list(accumulate(map(sum, documents), initial=0))
    expected = greedy(documents, room)
    assert len(chunks) == len(expected)

    chunk_B = np.tile(np.arange(len(expected)), 8)
    pairs = chunks.pairs(seed, np.arange(len(chunk_B)), chunk_B)
    for chunk, a, a_length, b, b_length, is_random in zip(chunk_B, *pairs, strict=True):
        sentences, a_end, room_for_b = expected[chunk], a + a_length, room - a_length
        document = next(d for d in pairwise(ends) if d[0] <= a < d[1])
        b_document = next(d for d in pairwise(ends) if d[0] <= b < d[1])
        is_lonely = documents[ends.index(document[0])] == [document[1] - document[0]]

        assert a_length >= 1
        assert b_length == min(room_for_b, b_document[1] - b) >= 1
        assert {a_end, b} <= set(cuts)
        assert document[0] <= cuts[sentences[0]] < document[1]
        if len(sentences) > 1:
            assert a == cuts[sentences[0]]
            assert a_end in {cuts[s] for s in sentences[1:]}
        elif not is_lonely:
            assert a_end in {cuts[sentences[0]], cuts[sentences[-1] + 1]}
        if is_random:
            assert document != b_document
        else:
            assert b == a_end
            assert not is_lonely
            assert a <= cuts[sentences[0]]
            assert b + b_length >= cuts[sentences[-1] + 1]


@pytest.mark.parametrize(("first", "second", "a_length"), [(36, 36, 36), (36, 4, 36), (6, 36, 6)])
def test_sentences_that_leave_an_eighth_of_a_sample_are_whole(
    tmp_path: Path, first: int, second: int, a_length: int
) -> None:
    chunks = chunks_of(write_positions(tmp_path, [[first, second]]), room=41)
    pairs = chunks.pairs(0, np.array([0]), np.array([0]))
    assert pairs.a.item() + pairs.a_length.item() == pairs.b.item() == first
    assert pairs.a_length.item() == a_length
    assert pairs.b_length.item() == min(second, 41 - a_length)


def test_the_last_sentence_of_a_document_is_seen_whole_behind_the_end_of_the_one_before(tmp_path: Path) -> None:
    chunks = chunks_of(write_positions(tmp_path, [[36, 36]]), room=41)
    pairs = chunks.pairs(0, np.array([0]), np.array([1]))
    assert (pairs.a.item(), pairs.a_length.item(), pairs.b.item(), pairs.b_length.item()) == (31, 5, 36, 36)


def test_a_longer_sentence_is_cut_into_equal_pieces_that_count_as_sentences(tmp_path: Path) -> None:
    chunks = chunks_of(write_positions(tmp_path, [[100]]), room=40)
    assert len(chunks) == 3
    pairs = chunks.pairs(0, np.arange(300), np.arange(300) % 3)
    assert set(pairs.a) == {0, 40, 80}
    assert set(pairs.b) == {10, 20, 30, 50, 60, 70, 90}


@pytest.mark.parametrize("seq_len", [8, 16, 64, 512])
@pytest.mark.parametrize("sentence", [1, 7, 30, 31, 45, 53, 54, 61, 62, 150, 5000])
@pytest.mark.parametrize("sentences", [1, 2, 3, 20])
def test_fifty_epochs_show_every_token_whatever_the_length_of_the_sentences(
    tmp_path: Path, seq_len: int, sentence: int, sentences: int
) -> None:
    documents = [[sentence] * sentences, [3, sentence, 2], [sentence]]
    chunks = chunks_of(write_lengths(tmp_path, documents), seq_len - 3)
    index = np.arange(50 * len(chunks))
    assert shown(chunks.pairs(0, index, index % len(chunks)), sum(map(sum, documents))).all()


ENGLISH = [
    "the",
    "old",
    "ferry",
    "carried",
    "nine",
    "lame",
    "horses",
    "before",
    "our",
    "neighbour",
    "counted",
    "every",
    "blue",
    "door",
    "of",
    "this",
    "town",
    "again",
]
HINDI = ["वह", "राम", "पानी", "घर", "नदी", "किताब", "आम", "सड़क", "सुबह", "रात", "आदमी", "औरत"]
ARABIC = ["بيت", "ماء", "كتاب", "شمس", "قمر", "نهر", "طريق", "رجل", "ليل", "صباح"]


def prose(words: Sequence[str], blank: str, stops: str, *, capital: bool = False) -> list[list[str]]:
    """Return documents of paragraphs of sentences of words, drawn at random."""
    choose = random.Random(0)

    def sentence() -> str:
        text = blank.join(choose.choices(words, k=choose.randint(3, 25)))
        stop = choose.choice(stops) if stops else ""
        return (text.capitalize() if capital else text) + stop

    return [[blank.join(sentence() for _ in range(choose.randint(1, 12))) for _ in range(4)] for _ in range(12)]


@pytest.mark.parametrize(
    "documents",
    [
        pytest.param(prose(ENGLISH, " ", ".?!", capital=True), id="capitals and full stops"),
        pytest.param(prose(ENGLISH, " ", ".?!"), id="lower case"),
        pytest.param(prose(ENGLISH, " ", ""), id="no full stop"),
        pytest.param([["\n\n".join(paragraphs)] for paragraphs in prose(ENGLISH, " ", "")], id="one document a line"),
        pytest.param([[" ".join(paragraphs)] for paragraphs in prose(ENGLISH, " ", ".")], id="one paragraph"),
        pytest.param(prose("水木山火口手足大小上下门人月日", "", "。\uff01\uff1f"), id="Chinese"),
        pytest.param(prose("水木山火口手足大小上下门人月日", "", ""), id="Chinese without stops"),
        pytest.param(prose(HINDI, " ", "।॥"), id="Hindi"),
        pytest.param(prose(ARABIC, " ", ".؟"), id="Arabic"),
        pytest.param(prose(ARABIC, " ", "،"), id="Arabic with commas alone"),
    ],
)
def test_fifty_epochs_at_64_tokens_show_all_of_a_text_whatever_its_typography(
    tmp_path: Path, documents: list[list[str]]
) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join("\n".join(paragraphs) for paragraphs in documents))
    shards = Shards(prepare(Data([str(tmp_path / "text.txt")], 200), tmp_path))
    assert shards.manifest.unknown == 0
    chunks = chunks_of(shards.folder, room=61)
    index = np.arange(50 * len(chunks))
    assert shown(chunks.pairs(0, index, index % len(chunks)), shards.manifest.tokens).all()


def test_the_second_segment_is_random_half_of_the_time_and_from_everywhere(tmp_path: Path) -> None:
    chunks = chunks_of(write_positions(tmp_path, [[5, 7, 6]] * 50), room=18)
    n = 20_000
    pairs = chunks.pairs(1, np.arange(n), np.arange(n) % 50)
    assert abs(pairs.is_random.mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    taken = np.bincount(pairs.b[pairs.is_random] // 18, minlength=50)
    assert np.abs(taken - taken.mean()).max() < 5 * np.sqrt(taken.mean())
    split = (pairs.a_length == 5).mean()
    assert abs(split - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_a_document_of_one_sentence_is_always_followed_by_a_random_one(tmp_path: Path) -> None:
    chunks = chunks_of(write_positions(tmp_path, [[9], [4, 4, 4], [17], [5, 5]]), room=20)
    assert len(chunks) == 4
    pairs = chunks.pairs(0, np.arange(100), np.tile([0, 2], 50))
    assert pairs.is_random.all()
    assert (pairs.a_length == np.tile([9, 17], 50)).all()


def test_a_corpus_of_one_document_has_no_random_continuation(tmp_path: Path) -> None:
    chunks = chunks_of(write_positions(tmp_path, [[5] * 40]), room=20)
    pairs = chunks.pairs(0, np.arange(1000), np.arange(1000) % len(chunks))
    assert not pairs.is_random.any()
    assert (pairs.b == pairs.a + pairs.a_length).all()


def test_a_single_sentence_is_refused_unless_it_is_long_enough_to_be_cut(tmp_path: Path) -> None:
    folder = write_positions(tmp_path, [[17]])
    with pytest.raises(CorpusError, match=r"a single sentence of 17 tokens.*give more text"):
        chunks_of(folder, room=20)
    assert len(chunks_of(folder, room=16)) == 2


def test_a_share_of_samples_is_short_and_of_any_length(tmp_path: Path) -> None:
    folder = write_positions(tmp_path, [[6] * 40] * 9)
    n, room = 20_000, 61
    plain, short = chunks_of(folder, room), chunks_of(folder, room, short=0.25)
    chunk = np.arange(n) % len(plain)
    whole, cut = plain.pairs(3, np.arange(n), chunk), short.pairs(3, np.arange(n), chunk)
    before, after = whole.a_length + whole.b_length, cut.a_length + cut.b_length
    is_full = before == room
    # A drawn length of 61 changes nothing.
    expected = 0.25 * (1 - 1 / (room - 1))
    assert abs((after < before)[is_full].mean() - expected) < 5 * np.sqrt(expected / is_full.sum())
    lengths = np.bincount(after[is_full & (after < before)], minlength=room)
    assert not lengths[:2].any()
    assert np.abs(lengths[2:room] - lengths[2:room].mean()).max() < 5 * np.sqrt(lengths[2:room].mean())
    assert (cut.a_length >= 1).all()
    assert (cut.b_length >= 1).all()
    # A is cut at its head and B at its end, and where the other one is long, neither below half of the room.
    assert (cut.a + cut.a_length == whole.a + whole.a_length).all()
    assert (cut.b == whole.b).all()
    cut_a, cut_b = cut.a_length < whole.a_length, cut.b_length < whole.b_length
    assert (cut.a_length >= after // 2)[cut_a].all()
    assert (cut.b_length >= after // 2)[cut_b].all()
