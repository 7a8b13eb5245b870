"""BERT's masking: which tokens the model must restore, and what it sees in their places.

Either single tokens are chosen or whole words: a piece that begins a word and those that continue it. Words are chosen
in a random order until a sample has its share; the last one is left out with the chance that makes the share right on
average, and a sample has one word at least.

Suffixes: T tokens of text in the batch, N samples, W words of all samples, M masked tokens.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .draws import Purpose, below, draw

I64 = NDArray[np.int64]
EIGHTY_PERCENT, NINETY_PERCENT = np.uint64(2**32 * 8 // 10), np.uint64(2**32 * 9 // 10)
_NUMBER_BITS, _RANDOM_BITS = 16, 24  # of a key; the other 24 of its 64 bits count samples


class Text(NamedTuple):
    """The tokens of a batch that may be masked, sample by sample."""

    at: I64
    """Where each stands in the flattened batch. (T,) ascending"""
    sample: I64
    """Number of its sample in the batch. (T,) ascending"""
    is_first: NDArray[np.bool_]
    """Whether it is the first of its segment. (T,)"""
    seq_len: int
    """Tokens of a row."""


class Masking(NamedTuple):
    """How tokens are masked: 80 % become [MASK], 10 % a random token, 10 % stay."""

    seed: int
    probability: float
    """Part of a sample's text that is masked; at least one token or word."""
    mask_id: int
    ordinary: I64
    """The tokens of which the random ones are drawn: all but the special ones."""
    continues: NDArray[np.bool_] | None = None
    """For each entry of the vocabulary, whether it continues a word; None masks single tokens. (vocabulary,)"""

    def apply(self, index_B: I64, ids: I64, text: Text) -> tuple[I64, I64]:
        """Mask the flattened batch `ids` in place; return the masked positions and their labels. Both (M,)."""
        masked_M = self._choose(index_B, ids, text)
        labels_M = ids[masked_M]
        row_M, place_M = np.divmod(masked_M, text.seq_len)
        bits_M = draw(self.seed, Purpose.REPLACE, index_B[row_M], place_M)
        lot_M = bits_M >> np.uint64(32)
        random_M = self.ordinary[below(bits_M & np.uint64(2**32 - 1), len(self.ordinary))]
        other_M = np.where(lot_M < NINETY_PERCENT, random_M, labels_M)
        ids[masked_M] = np.where(lot_M < EIGHTY_PERCENT, self.mask_id, other_M)
        return masked_M, labels_M

    def _choose(self, index_B: I64, ids: I64, text: Text) -> I64:
        """Return the positions of the masked tokens, ascending."""
        first_W = np.arange(len(text.at))
        if self.continues is not None:
            first_W = np.flatnonzero(~self.continues[ids[text.at]] | text.is_first)
        length_W = np.diff(first_W, append=len(text.at))
        row_W, place_W = np.divmod(text.at[first_W], text.seq_len)
        sample_W = text.sample[first_W]
        begin_N = np.searchsorted(sample_W, np.arange(sample_W[-1] + 1))
        bits_W = draw(self.seed, Purpose.MASK, index_B[row_W], place_W)
        order_W = _shuffle(bits_W, sample_W, begin_N)

        before_W = np.cumsum(length_W[order_W]) - length_W[order_W]
        before_W -= before_W[begin_N][sample_W]
        share_W = self.probability * np.bincount(text.sample)[sample_W]
        if self.continues is None:
            is_chosen_W = before_W < np.maximum(1, np.rint(share_W))
        else:
            lot_W = draw(self.seed, Purpose.LAST_WORD, index_B[row_W], place_W)[order_W] / 2.0**64
            is_chosen_W = (before_W + lot_W * length_W[order_W] < share_W) | (before_W == 0)

        chosen_W = np.sort(order_W[is_chosen_W])
        return text.at[expand(first_W[chosen_W], length_W[chosen_W])]


def _shuffle(bits_W: NDArray[np.uint64], sample_W: I64, begin_N: I64) -> I64:
    """Return an order in which samples follow each other and the words of each are shuffled."""
    # Sorting plain numbers is many times faster than sorting by two keys. The number of the word in its sample makes
    # the keys differ, and is what the sorted ones are read for. No bit depends on the other samples of the batch.
    number_W = (np.arange(len(sample_W)) - begin_N[sample_W]).astype(np.uint64)
    random_W = bits_W >> np.uint64(64 - _RANDOM_BITS) << np.uint64(_NUMBER_BITS)
    keys_W = sample_W.astype(np.uint64) << np.uint64(_RANDOM_BITS + _NUMBER_BITS) | random_W | number_W
    keys_W.sort()
    return begin_N[sample_W] + (keys_W & np.uint64((1 << _NUMBER_BITS) - 1)).astype(np.int64)


def expand(first: I64, length: I64) -> I64:
    """Return the numbers of all ranges with these beginnings and lengths, one range after the other."""
    return np.repeat(first - np.cumsum(length) + length, length) + np.arange(length.sum())
