"""Rows that hold several samples, judged against the text itself: every token tells where it stands."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.conftest import FIRST, write_lengths, write_positions
from workers.contract.sources import CorpusError
from workers.samples.batch import Batch
from workers.samples.dataset import PreTrainingData

PAD, UNK, CLS, SEP, MASK = range(5)
LENGTHS = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=9), min_size=1, max_size=12)


def restore(batch: Batch) -> torch.Tensor:
    """Put the labels back where the masks are. (B, S)"""
    ids = batch.input_ids.clone()
    ids.view(-1)[batch.masked_positions] = batch.masked_labels
    return ids


def samples_of(batch: Batch, row: int) -> list[list[int]]:
    """Cut a row before each [CLS]; the padding is left out."""
    ids = restore(batch)[row].tolist()
    ids = ids[: ids.index(PAD)] if PAD in ids else ids
    begins = [place for place, token in enumerate(ids) if token == CLS]
    return [ids[begin:end] for begin, end in pairwise([*begins, len(ids)])]


def segments_of(sample: Sequence[int]) -> list[list[int]]:
    """Return the text between the special tokens of a sample, as positions in the corpus."""
    assert sample[0] == CLS
    assert sample[-1] == SEP
    ends = [place for place, token in enumerate(sample) if token == SEP]
    return [[token - FIRST for token in sample[begin + 1 : end]] for begin, end in pairwise([0, *ends])]


def document_of(documents: list[list[int]], token: int) -> int:
    return next(n for n, end in enumerate(accumulate(map(sum, documents))) if token < end)


def is_run(tokens: list[int]) -> bool:
    return tokens == list(range(tokens[0], tokens[0] + len(tokens)))


@settings(max_examples=40)
@given(documents=LENGTHS, seq_len=st.integers(16, 64), seed=st.integers(0, 2**32), short=st.sampled_from([0.0, 0.5]))
def test_a_packed_row_is_samples_of_real_text_one_after_the_other(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], seq_len: int, seed: int, short: float
) -> None:
    documents.append([3, 4])
    folder = write_positions(tmp_path_factory.mktemp("packed"), documents)
    data = PreTrainingData(folder, seq_len=seq_len, seed=seed, packing=True, short_sequences=short)
    batch = data.batch(range(2 * len(data)))
    labels = iter(batch.next_sentence_labels.tolist())
    for row in range(len(batch.input_ids)):
        for sample in samples_of(batch, row):
            a, b = segments_of(sample)
            assert is_run(a)
            assert is_run(b)
            if next(labels):
                assert document_of(documents, a[0]) != document_of(documents, b[0])
            else:
                assert b[0] == a[-1] + 1
            for segment in (a, b):
                assert document_of(documents, segment[0]) == document_of(documents, segment[-1])
    assert next(labels, None) is None


@settings(max_examples=40)
@given(documents=LENGTHS, seq_len=st.integers(16, 64), seed=st.integers(0, 2**32), short=st.sampled_from([0.0, 0.5]))
def test_one_epoch_of_packed_single_segments_shows_every_token(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], seq_len: int, seed: int, short: float
) -> None:
    folder = write_positions(tmp_path_factory.mktemp("packed"), documents)
    data = PreTrainingData(folder, seq_len=seq_len, seed=seed, packing=True, next_sentence=False, short_sequences=short)
    batch = data.batch(range(len(data)))
    shown: set[int] = set()
    for row in range(len(batch.input_ids)):
        for sample in samples_of(batch, row):
            (a,) = segments_of(sample)
            assert is_run(a)
            assert document_of(documents, a[0]) == document_of(documents, a[-1])
            shown.update(a)
    if not short:
        assert shown == set(range(sum(map(sum, documents))))
    assert len(batch.next_sentence_labels) == 0
    assert not batch.token_type_ids.any()


def test_numbers_positions_segments_and_boundaries_tell_the_samples_of_a_row_apart(prepared: Path) -> None:
    data = PreTrainingData(prepared, seq_len=128, seed=1, packing=True, short_sequences=0.5)
    batch = data.batch(range(200))
    packed = batch.packed
    assert packed is not None
    boundaries = [0]
    starts: list[int] = []
    for row in range(200):
        samples, at = samples_of(batch, row), 0
        for number, sample in enumerate(samples, start=1):
            here = slice(at, at + len(sample))
            assert batch.attention_mask[row, here].tolist() == [number] * len(sample)
            assert packed.position_ids[row, here].tolist() == list(range(len(sample)))
            second = len(sample) - sample.index(SEP) - 1
            assert batch.token_type_ids[row, here].tolist() == [0] * (len(sample) - second) + [1] * second
            starts.append(row * 128 + at)
            at += len(sample)
            boundaries.append(row * 128 + at)
        assert not batch.attention_mask[row, at:].any()
        assert not packed.position_ids[row, at:].any()
        boundaries += [(row + 1) * 128] if at < 128 else []
    assert packed.starts.tolist() == starts
    assert packed.boundaries.tolist() == boundaries
    assert batch.n_samples == len(starts) > 200
    assert batch.n_tokens == int((batch.attention_mask > 0).sum())


def short_documents(mean: int) -> list[list[int]]:
    """Documents of one to many sentences of 5 to 40 tokens."""
    random = np.random.default_rng(0)
    counts = 1 + random.geometric(20 / mean, 400)
    return [random.integers(5, 40, count).tolist() for count in counts]


@pytest.mark.parametrize("seq_len", [128, 512])
@pytest.mark.parametrize("next_sentence", [True, False])
@pytest.mark.parametrize("mean", [60, 200, 2000])
def test_97_per_cent_of_the_tokens_are_real_whatever_the_length_of_documents(
    tmp_path: Path, seq_len: int, next_sentence: bool, mean: int
) -> None:
    folder = write_lengths(tmp_path, short_documents(mean))
    data = PreTrainingData(folder, seq_len=seq_len, seed=0, packing=True, next_sentence=next_sentence)
    drawn = data.draw(range(2000))
    assert drawn.length.sum() / (2000 * seq_len) >= 0.97


@pytest.mark.parametrize("seq_len", [64, 128, 512])
def test_97_per_cent_of_the_tokens_are_real_in_novels(prepared: Path, seq_len: int) -> None:
    data = PreTrainingData(prepared, seq_len=seq_len, seed=0, packing=True)
    assert data.draw(range(2000)).length.sum() / (2000 * seq_len) >= 0.97


def test_half_of_the_second_segments_are_random_and_from_everywhere(tmp_path: Path) -> None:
    documents = [[5, 7, 6]] * 50
    data = PreTrainingData(write_positions(tmp_path, documents), seq_len=64, seed=1, packing=True)
    pairs = data.draw(range(8000)).pairs
    assert abs(pairs.is_random.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(pairs.is_random))
    taken = np.bincount(pairs.b[pairs.is_random] // 18, minlength=50)
    assert np.abs(taken - taken.mean()).max() < 5 * np.sqrt(taken.mean())


def test_a_row_is_a_function_of_seed_and_index_alone(prepared: Path) -> None:
    data = PreTrainingData(prepared, seq_len=128, seed=3, packing=True, whole_word=True, short_sequences=0.1)
    whole = data.batch(range(40))
    for row in (0, 17, 39):
        alone = data.batch([row])
        assert torch.equal(alone.input_ids[0], whole.input_ids[row])
        assert torch.equal(alone.attention_mask[0], whole.attention_mask[row])
        hidden = whole.masked_positions[whole.masked_positions // 128 == row] % 128
        assert torch.equal(alone.masked_positions, hidden)


def test_a_text_of_one_token_has_no_pair(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="a single token"):
        PreTrainingData(write_positions(tmp_path, [[1]]), seq_len=16, seed=0, packing=True)
    assert PreTrainingData(tmp_path, seq_len=16, seed=0, packing=True, next_sentence=False).batch([0]).n_tokens >= 3


def test_a_text_of_one_document_has_no_random_second_segment(tmp_path: Path) -> None:
    data = PreTrainingData(write_positions(tmp_path, [[5, 9, 1] * 20]), seq_len=32, seed=0, packing=True)
    pairs = data.draw(range(500)).pairs
    assert not pairs.is_random.any()
    assert (pairs.b == pairs.a + pairs.a_length).all()


def test_an_epoch_of_documents_of_one_sentence_is_packed_and_balanced(tmp_path: Path) -> None:
    data = PreTrainingData(write_positions(tmp_path, [[9]] * 400), seq_len=64, seed=0, packing=True)
    drawn = data.draw(range(1000))
    assert drawn.length.sum() / (1000 * 64) >= 0.9  # five samples of 12 tokens fit, a sixth does not
    assert abs(drawn.pairs.is_random.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(drawn.row))


@pytest.mark.parametrize("seq_len", [64, 512])
def test_a_random_second_segment_looks_like_a_real_one(tmp_path: Path, seq_len: int) -> None:
    documents = short_documents(150)
    data = PreTrainingData(write_lengths(tmp_path, documents), seq_len=seq_len, seed=0, packing=True)
    row, pairs, length = data.draw(range(3000))
    borders = data._rows._borders
    starts = borders.token(np.arange(len(borders) + 1))
    row_end = np.append(np.diff(row) > 0, True)
    begins_a_piece, ends_one = np.isin(pairs.b, starts), np.isin(pairs.b + pairs.b_length, starts)
    for inside in (row_end, ~row_end):
        for looks in (begins_a_piece, ends_one):
            real, random = looks[inside & ~pairs.is_random], looks[inside & pairs.is_random]
            # A short end of a document has few others that are as short.
            assert abs(real.mean() - random.mean()) < (0.15 if seq_len == 64 else 0.05)
    assert ends_one[~row_end].mean() > 0.9
    assert length.min() > 3
