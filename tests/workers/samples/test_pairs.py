from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.conftest import write_positions
from workers.corpus.shards import Shards
from workers.samples.pairs import Chunks

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


@settings(deadline=None)
@given(documents=LENGTHS, room=st.integers(5, 60), seed=st.integers(0, 2**64 - 1))
def test_every_pair_is_what_the_rules_say(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], room: int, seed: int
) -> None:
    documents.append([3, 4])
    shards = Shards(write_positions(tmp_path_factory.mktemp("pairs"), documents))
    cuts = list(accumulate((n for lengths in documents for n in lengths), initial=0))
    ends = list(accumulate(map(sum, documents), initial=0))
    expected, chunks = greedy(documents, room), Chunks(shards, room)
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


@pytest.mark.parametrize(("first", "second", "a_length"), [(90, 90, 20), (90, 5, 36), (6, 90, 6), (30, 30, 20)])
def test_of_long_sentences_a_keeps_its_end_and_b_its_head(
    tmp_path: Path, first: int, second: int, a_length: int
) -> None:
    chunks = Chunks(Shards(write_positions(tmp_path, [[first, second]])), room=41)
    pairs = chunks.pairs(0, np.array([0]), np.array([0]))
    assert pairs.a.item() + pairs.a_length.item() == pairs.b.item() == first
    assert pairs.a_length.item() == a_length
    assert pairs.b_length.item() == min(second, 41 - a_length)


def test_the_second_segment_is_random_half_of_the_time_and_from_everywhere(tmp_path: Path) -> None:
    chunks = Chunks(Shards(write_positions(tmp_path, [[5, 7, 6]] * 50)), room=18)
    n = 20_000
    pairs = chunks.pairs(1, np.arange(n), np.arange(n) % 50)
    assert abs(pairs.is_random.mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    taken = np.bincount(pairs.b[pairs.is_random] // 18, minlength=50)
    assert np.abs(taken - taken.mean()).max() < 5 * np.sqrt(taken.mean())
    split = (pairs.a_length == 5).mean()
    assert abs(split - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_a_document_of_one_sentence_is_always_followed_by_a_random_one(tmp_path: Path) -> None:
    chunks = Chunks(Shards(write_positions(tmp_path, [[9], [4, 4, 4], [70], [5, 5]])), room=20)
    assert len(chunks) == 4
    pairs = chunks.pairs(0, np.arange(100), np.tile([0, 2], 50))
    assert pairs.is_random.all()
    assert (pairs.a_length == np.tile([9, 10], 50)).all()


def test_a_corpus_of_one_document_has_no_random_continuation(tmp_path: Path) -> None:
    chunks = Chunks(Shards(write_positions(tmp_path, [[5] * 40])), room=20)
    pairs = chunks.pairs(0, np.arange(1000), np.arange(1000) % len(chunks))
    assert not pairs.is_random.any()
    assert (pairs.b == pairs.a + pairs.a_length).all()
