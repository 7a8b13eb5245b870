from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.workers.conftest import write_positions
from workers.contract.sources import SPECIAL_TOKENS
from workers.samples.dataset import PreTrainingData
from workers.samples.masking import Masking, Text

I64 = NDArray[np.int64]
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL_TOKENS))
FIRST, VOCABULARY = 5, 205
SAMPLES, PLACES = 4_000, 64


def five_sigma(p: float, n: NDArray[np.int64] | int) -> NDArray[np.float64]:
    return np.asarray(5 * np.sqrt(p * (1 - p) / n))


def apply(
    ids: I64, is_text: NDArray[np.bool_], *, seed: int = 0, first: int = 0, continues: NDArray[np.bool_] | None = None
) -> tuple[I64, I64]:
    """Mask rows of one sample each, in place; a segment begins after each position that holds no text."""
    rows, seq_len = ids.shape
    at = np.flatnonzero(is_text)
    is_first = is_text & np.insert(~is_text[:, :-1], 0, True, axis=1)
    text = Text(at, at // seq_len, is_first.ravel()[at], seq_len)
    masking = Masking(seed, 0.15, MASK, np.arange(FIRST, VOCABULARY), continues)
    return masking.apply(np.arange(first, first + rows), ids.reshape(-1), text)


class Masked:
    """Samples of random text, four special tokens among them, before and after masking."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.text = generator.integers(FIRST, VOCABULARY, (SAMPLES, PLACES))
        self.text[:, 0], self.text[:, 20], self.text[:, 50], self.text[:, 51:] = CLS, SEP, SEP, PAD
        self.is_text = self.text >= FIRST
        self.ids = self.text.copy()
        self.positions, self.labels = apply(self.ids, self.is_text, seed=7)
        self.shown = self.ids.reshape(-1)[self.positions]


@pytest.fixture(scope="module")
def masked() -> Masked:
    return Masked()


def test_labels_are_the_text_and_nothing_else_is_changed(masked: Masked) -> None:
    assert (masked.labels == masked.text.reshape(-1)[masked.positions]).all()
    restored = masked.ids.copy()
    restored.reshape(-1)[masked.positions] = masked.labels
    assert (restored == masked.text).all()


def test_only_text_is_masked_and_each_position_once(masked: Masked) -> None:
    assert (np.diff(masked.positions) > 0).all()
    assert masked.is_text.reshape(-1)[masked.positions].all()


def test_a_sample_has_its_part_of_masks_and_at_least_one() -> None:
    ids = np.full((5, 12), PAD)
    for row, length in enumerate([1, 3, 4, 10, 12]):
        ids[row, :length] = FIRST
    positions, _ = apply(ids.copy(), ids == FIRST)
    assert np.bincount(positions // 12).tolist() == [1, 1, 1, 2, 2]


def test_four_fifths_are_masked_a_tenth_is_replaced_and_a_tenth_is_kept(masked: Masked) -> None:
    n, stay = len(masked.labels), 1 / (VOCABULARY - FIRST)
    assert abs((masked.shown == MASK).mean() - 0.8) < five_sigma(0.8, n)
    assert abs((masked.shown == masked.labels).mean() - (0.1 + 0.1 * stay)) < five_sigma(0.1, n)
    replaced = masked.shown[(masked.shown != MASK) & (masked.shown != masked.labels)]
    counts = np.bincount(replaced, minlength=VOCABULARY)
    assert not counts[:FIRST].any()
    assert (np.abs(counts[FIRST:] / len(replaced) - stay) < five_sigma(stay, len(replaced))).all()


def test_every_position_of_a_sample_is_masked_equally_often(masked: Masked) -> None:
    hidden = np.zeros_like(masked.is_text)
    hidden.reshape(-1)[masked.positions] = True
    share = hidden.sum(1) / masked.is_text.sum(1)
    places = masked.is_text[0]
    assert (np.abs(hidden.mean(0) - share.mean())[places] < five_sigma(0.15, SAMPLES)).all()


def test_a_mask_depends_on_seed_and_index_and_not_on_the_samples_beside_it() -> None:
    text = np.full((6, 30), FIRST)
    together, alone = text.copy(), text[:1].copy()
    apply(together, text > 0)
    apply(alone, text[:1] > 0, first=4)
    assert (together[4] == alone[0]).all()
    assert len({tuple(row) for row in together}) == 6
    other = text[:1].copy()
    apply(other, text[:1] > 0, first=4, seed=8)
    assert (other != alone).any()


def test_the_same_chunk_is_masked_anew_in_the_next_epoch(tmp_path: Path) -> None:
    data = PreTrainingData(write_positions(tmp_path, [[30, 30]]), seq_len=63, seed=0)
    assert len(data) == 1
    masks = {tuple(data.batch([epoch]).masked_positions.tolist()) for epoch in range(20)}
    assert len(masks) == 20


def test_special_tokens_are_never_hidden_in_a_batch(prepared: Path) -> None:
    batch = PreTrainingData(prepared, seq_len=64, seed=7).batch(range(500))
    assert (batch.attention_mask.view(-1)[batch.masked_positions] == 1).all()
    assert not torch.isin(batch.masked_labels, torch.tensor([PAD, CLS, SEP, MASK])).any()


CONTINUES = np.arange(VOCABULARY) % 3 == 0
"""Every third token of the vocabulary continues a word."""


def words(ids: I64, is_text: NDArray[np.bool_]) -> list[list[int]]:
    """Return the words of a row, each as the places of its tokens."""
    found: list[list[int]] = []
    for place in np.flatnonzero(is_text):
        if found and CONTINUES[ids[place]] and found[-1][-1] == place - 1:
            found[-1].append(int(place))
        else:
            found.append([int(place)])
    return found


def test_a_word_is_masked_whole_or_not_at_all_and_no_word_reaches_into_the_other_segment(masked: Masked) -> None:
    ids = masked.text.copy()
    positions, _ = apply(ids, masked.is_text, seed=3, continues=CONTINUES)
    assert (np.diff(positions) > 0).all()
    hidden = np.zeros_like(masked.is_text)
    hidden.reshape(-1)[positions] = True
    for row in range(500):
        for word in words(masked.text[row], masked.is_text[row]):
            assert len({bool(hidden[row, place]) for place in word}) == 1
    shown = ids.reshape(-1)[positions]
    assert abs((shown == MASK).mean() - 0.8) < five_sigma(0.8, len(shown))  # each piece has its own lot


def test_the_chance_of_a_word_is_such_that_the_share_of_masked_tokens_is_right(masked: Masked) -> None:
    positions, _ = apply(masked.text.copy(), masked.is_text, seed=3, continues=CONTINUES)
    hidden = np.zeros_like(masked.is_text)
    hidden.reshape(-1)[positions] = True
    assert abs(hidden.sum() / masked.is_text.sum() - 0.15) < five_sigma(0.15, masked.is_text.sum())
    by_length: dict[int, list[bool]] = {}
    for row in range(SAMPLES):
        for word in words(masked.text[row], masked.is_text[row]):
            by_length.setdefault(len(word), []).append(bool(hidden[row, word[0]]))
    for length in (1, 2, 3):
        chosen = by_length[length]
        assert abs(np.mean(chosen) - 0.15) < five_sigma(0.15, len(chosen)) + 0.005, length


def test_a_sample_of_one_long_word_is_masked_all_the_same() -> None:
    ids = np.full((1, 12), CONTINUES.nonzero()[0][3])
    positions, _ = apply(ids, ids > 0, continues=CONTINUES)
    assert positions.tolist() == list(range(12))


def test_without_continuations_whole_words_are_single_tokens(masked: Masked) -> None:
    positions, _ = apply(masked.text.copy(), masked.is_text, continues=np.zeros(VOCABULARY, bool))
    counts = np.bincount(positions // PLACES, minlength=SAMPLES)
    exact = 0.15 * masked.is_text.sum(1)
    assert ((counts >= np.floor(exact)) & (counts <= np.ceil(exact))).all()
