"""BERT's masking: which tokens the model must restore, and what it sees in their places.

Suffixes: B samples, S tokens a sample, M masked tokens in the batch.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .draws import Purpose, below, draw

I64 = NDArray[np.int64]
EIGHTY_PERCENT, NINETY_PERCENT = np.uint64(2**32 * 8 // 10), np.uint64(2**32 * 9 // 10)


class Masking(NamedTuple):
    """How tokens are masked: 80 % become [MASK], 10 % a random token, 10 % stay."""

    seed: int
    probability: float
    """Part of a sample's text that is masked; at least one token."""
    mask_id: int
    ordinary: I64
    """The tokens of which the random ones are drawn: all but the special ones."""

    def apply(self, index_B: I64, ids_BS: I64, is_text_BS: NDArray[np.bool_]) -> tuple[I64, I64]:
        """Mask `ids_BS` in place; return the masked positions in the flattened batch and their labels. Both (M,)."""
        masked_M = self._choose(index_B, is_text_BS)
        labels_M = ids_BS.reshape(-1)[masked_M]
        sample_M, place_M = np.divmod(masked_M, ids_BS.shape[1])
        bits_M = draw(self.seed, Purpose.REPLACE, index_B[sample_M], place_M)
        lot_M = bits_M >> np.uint64(32)
        random_M = self.ordinary[below(bits_M & np.uint64(2**32 - 1), len(self.ordinary))]
        other_M = np.where(lot_M < NINETY_PERCENT, random_M, labels_M)
        ids_BS.reshape(-1)[masked_M] = np.where(lot_M < EIGHTY_PERCENT, self.mask_id, other_M)
        return masked_M, labels_M

    def _choose(self, index_B: I64, is_text_BS: NDArray[np.bool_]) -> I64:
        place_S = np.arange(is_text_BS.shape[1])
        # The tokens with the smallest keys are masked. The position in the low bits makes the keys of a sample differ.
        keys_BS = draw(self.seed, Purpose.MASK, index_B[:, None], place_S)
        keys_BS = (keys_BS & ~np.uint64(0xFFFF)) | place_S.astype(np.uint64)
        keys_BS[~is_text_BS] = np.uint64(2**64 - 1)
        counts_B = np.maximum(1, np.rint(self.probability * is_text_BS.sum(axis=1)).astype(np.int64))
        last_B1 = np.take_along_axis(np.sort(keys_BS, axis=1), counts_B[:, None] - 1, axis=1)
        return np.flatnonzero(keys_BS <= last_B1)
