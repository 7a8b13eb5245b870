"""Token shards → batches for BERT's two tasks, each a function of (seed, global sample index) alone.

Neither the world size nor the micro-batch nor what was read before changes a sample, so a job goes on with the same
samples on any number of workers.

Suffixes: B samples, S tokens a sample, M masked tokens in the batch.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from workers.contract.sources import CorpusError
from workers.corpus.shards import Shards
from workers.corpus.vocabulary import CLS, MASK, PAD, SEP

from .batch import Batch
from .draws import Purpose, draw
from .masking import Masking
from .pairs import Chunks, Pairs

I64 = NDArray[np.int64]


class PreTrainingData:
    """A prepared corpus as an endless row of samples; sample i belongs to epoch i // len.

    Args:
        folder: What `prepare` returned.
        seq_len: Tokens a sample, the three special ones included.
        seed: Decides the order, the pairs and the masks.
        mask_probability: Part of a sample's tokens, special ones not counted, that the model must restore.
    """

    def __init__(self, folder: Path, *, seq_len: int, seed: int, mask_probability: float = 0.15) -> None:
        if seq_len < 8:
            raise CorpusError(f"seq_len {seq_len}: no room for two segments and three special tokens; use 8 or more")
        if not 0 < mask_probability < 1:
            raise CorpusError(f"mask_probability {mask_probability}: must lie between 0 and 1; BERT's is 0.15")
        self.seq_len, self.seed = seq_len, seed
        self._shards = Shards(folder)
        self._chunks = Chunks(self._shards.sentences, self._shards.documents, room=seq_len - 3)
        special = self._shards.manifest.special_ids
        self._pad, self._cls, self._sep = (special[token] for token in (PAD, CLS, SEP))
        ordinary = np.setdiff1d(np.arange(self.vocab_size), list(special.values()))
        self._masking = Masking(seed, mask_probability, special[MASK], ordinary)
        # A batch may reach over the end of an epoch; more than two orders are never needed at a time.
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def __len__(self) -> int:
        """Count the samples of an epoch."""
        return len(self._chunks)

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary."""
        return self._shards.manifest.vocab_size

    @property
    def unigram_entropy_nats(self) -> float:
        """Entropy of the token distribution, the loss that a model must beat."""
        return self._shards.manifest.unigram_entropy_nats

    def batch(self, indices: Sequence[int] | range) -> Batch:
        """Assemble the samples with these global indices."""
        index_B = np.asarray(indices, np.int64)
        pairs = self._chunks.pairs(self.seed, index_B, self._chunk(index_B))
        ids_BS, types_BS, is_text_BS = self._lay_out(pairs)
        filled_B = pairs.a_length + pairs.b_length + 3
        masked_M, labels_M = self._masking.apply(index_B, ids_BS, is_text_BS)
        return Batch(
            input_ids=torch.from_numpy(ids_BS),
            token_type_ids=torch.from_numpy(types_BS),
            attention_mask=torch.from_numpy((np.arange(self.seq_len) < filled_B[:, None]).astype(np.int64)),
            masked_positions=torch.from_numpy(masked_M),
            masked_labels=torch.from_numpy(labels_M),
            next_sentence_labels=torch.from_numpy(pairs.is_random.astype(np.int64)),
            n_tokens=int(filled_B.sum()),
        )

    def _chunk(self, index_B: I64) -> I64:
        epoch_B, place_B = np.divmod(index_B, len(self))
        chunk_B = np.empty_like(index_B)
        for epoch in np.unique(epoch_B):
            here = epoch_B == epoch
            chunk_B[here] = self._order(int(epoch))[place_B[here]]
        return chunk_B

    def _draw_order(self, epoch: int) -> I64:
        keys = draw(self.seed, Purpose.ORDER, np.array([epoch]), np.arange(len(self)))
        return np.argsort(keys, kind="stable")

    def _lay_out(self, pairs: Pairs) -> tuple[I64, I64, NDArray[np.bool_]]:
        """Place [CLS] A [SEP] B [SEP] [PAD]…; returns token numbers, segments and where text stands. All (B, S)."""
        place_S = np.arange(self.seq_len)
        b_first_B1 = pairs.a_length[:, None] + 2
        end_B1 = b_first_B1 + pairs.b_length[:, None]
        is_b_BS = (place_S >= b_first_B1) & (place_S < end_B1)
        is_text_BS = (place_S > 0) & (place_S < b_first_B1 - 1) | is_b_BS
        source_BS = np.where(is_b_BS, pairs.b[:, None] - b_first_B1, pairs.a[:, None] - 1) + place_S
        ids_BS = np.full(is_text_BS.shape, self._pad, np.int64)
        ids_BS[is_text_BS] = self._shards.take(source_BS[is_text_BS])
        ids_BS[:, 0] = self._cls
        np.put_along_axis(ids_BS, b_first_B1 - 1, self._sep, axis=1)
        np.put_along_axis(ids_BS, end_B1, self._sep, axis=1)
        types_BS = ((place_S >= b_first_B1) & (place_S <= end_B1)).astype(np.int64)
        return ids_BS, types_BS, is_text_BS
