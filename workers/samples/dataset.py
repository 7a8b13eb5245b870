"""Token shards → batches for BERT's two tasks, each a function of (seed, global row index) alone.

Neither the world size nor the micro-batch nor what was read before changes a row, so a job goes on with the same
rows on any number of workers. Nothing of the text is read before it is needed, and what is needed to find it is mapped
into memory.

Suffixes: B rows, S tokens a row, N samples, T tokens of text, M masked tokens in the batch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from workers.contract.sources import CorpusError
from workers.contract.spec.job import JobSpec
from workers.contract.spec.phase import Phase
from workers.corpus import vocabulary
from workers.corpus.build import Progress
from workers.corpus.rows.index import Layout, open_index
from workers.corpus.shards import VOCABULARY, Shards
from workers.corpus.vocabulary import CLS, MASK, PAD, SEP

from .batch import Batch, Packed
from .masking import Masking, Text, expand
from .order import permute
from .packing import Packs
from .pairs import Chunks, Pairs

I64 = NDArray[np.int64]


class Drawn(NamedTuple):
    """The samples of a batch before their tokens are read; each field has one entry a sample."""

    row: I64
    """Number of its row in the batch, ascending."""
    pairs: Pairs
    length: I64
    """Tokens, the special ones included."""


class PreTrainingData:
    """A prepared corpus as an endless list of rows; row i belongs to epoch i // len.

    Args:
        folder: What `prepare` returned.
        seq_len: Tokens a row, the special ones included.
        seed: Decides the order, the pairs and the masks.
        mask_probability: Part of a sample's tokens, special ones not counted, that the model must restore.
        whole_word: Mask all pieces of a word or none.
        next_sentence: Samples are [CLS] A [SEP] B [SEP]; otherwise [CLS] A [SEP].
        packing: Rows hold several samples.
        short_sequences: Share of samples that are cut to a random length; where rows are packed, of rows.
        progress: Told how far the index is that is made at the first use of a corpus at this length.

    Raises:
        CorpusError: no sample can be made of the corpus with these settings.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seq_len: int,
        seed: int,
        mask_probability: float = 0.15,
        whole_word: bool = False,
        next_sentence: bool = True,
        packing: bool = False,
        short_sequences: float = 0.0,
        progress: Progress | None = None,
    ) -> None:
        if seq_len < 8:
            raise CorpusError(f"seq_len {seq_len}: no room for two segments and three special tokens; use 8 or more")
        if not 0 < mask_probability < 1:
            raise CorpusError(f"mask_probability {mask_probability}: must lie between 0 and 1; BERT's is 0.15")
        self.seq_len, self.seed = seq_len, seed
        self.next_sentence, self.packing = next_sentence, packing
        self._shards = Shards(folder)
        layout = Layout(seq_len, next_sentence=next_sentence, packing=packing)
        index = open_index(self._shards, layout, progress)
        one_pair_a_row = next_sentence and not packing
        self._rows: Chunks | Packs = (
            Chunks(index, layout.room, short_sequences) if one_pair_a_row else Packs(index, layout, short_sequences)
        )
        special = self._shards.manifest.special_ids
        self._pad, self._cls, self._sep = (special[token] for token in (PAD, CLS, SEP))
        ordinary = np.setdiff1d(np.arange(self.vocab_size), list(special.values()))
        continues = np.array([t.startswith("##") for t in vocabulary.load(folder / VOCABULARY)]) if whole_word else None
        self._masking = Masking(seed, mask_probability, special[MASK], ordinary, continues)

    def __len__(self) -> int:
        """Count the rows of an epoch."""
        return len(self._rows)

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary."""
        return self._shards.manifest.vocab_size

    @property
    def unigram_entropy_nats(self) -> float:
        """Entropy of the token distribution, the loss that a model must beat."""
        return self._shards.manifest.unigram_entropy_nats

    def draw(self, indices: Sequence[int] | range) -> Drawn:
        """Decide which tokens the rows with these global indices hold, without reading one of them."""
        index_B = np.asarray(indices, np.int64)
        epoch_B, place_B = np.divmod(index_B, len(self))
        row_B = permute(self.seed, epoch_B, place_B, len(self))
        if isinstance(self._rows, Packs):
            row_N, pairs = self._rows.samples(self.seed, index_B, row_B)
        else:
            row_N, pairs = np.arange(len(index_B)), self._rows.pairs(self.seed, index_B, row_B)
        return Drawn(row_N, pairs, pairs.a_length + pairs.b_length + (3 if self.next_sentence else 2))

    def batch(self, indices: Sequence[int] | range) -> Batch:
        """Assemble the rows with these global indices."""
        index_B, drawn = np.asarray(indices, np.int64), self.draw(indices)
        shape, size = (len(index_B), self.seq_len), len(index_B) * self.seq_len
        start_N, number_N = _places(drawn, self.seq_len)
        ids, types, text = self._lay_out(drawn, start_N, size)
        masked_M, labels_M = self._masking.apply(index_B, ids, text)
        at, numbers = expand(start_N, drawn.length), np.zeros(size, np.int64)
        numbers[at] = np.repeat(number_N, drawn.length)
        labels_N = drawn.pairs.is_random.astype(np.int64)
        return Batch(
            input_ids=torch.from_numpy(ids.reshape(shape)),
            token_type_ids=torch.from_numpy(types.reshape(shape)),
            attention_mask=torch.from_numpy(numbers.reshape(shape)),
            masked_positions=torch.from_numpy(masked_M),
            masked_labels=torch.from_numpy(labels_M),
            next_sentence_labels=torch.from_numpy(labels_N if self.next_sentence else labels_N[:0]),
            n_tokens=int(drawn.length.sum()),
            n_samples=len(labels_N),
            packed=_packed(start_N, drawn.length, at, shape) if self.packing else None,
        )

    def _lay_out(self, drawn: Drawn, start_N: I64, size: int) -> tuple[I64, I64, Text]:
        """Place the tokens of the samples; return token numbers and segments, both flattened, and where text stands."""
        (a_N, a_length_N, b_N, b_length_N, _), end_N = drawn.pairs, start_N + drawn.length - 1
        a_at_N, b_at_N = start_N + 1, start_N + 2 + a_length_N
        # A and B of a sample follow each other, so all positions ascend.
        first, length = (np.stack(each, 1).ravel() for each in ((a_N, b_N), (a_length_N, b_length_N)))
        at_T = expand(np.stack([a_at_N, b_at_N], 1).ravel(), length)
        ids, types = np.full(size, self._pad, np.int64), np.zeros(size, np.int64)
        ids[at_T] = self._shards.take(expand(first, length))
        ids[start_N], ids[b_at_N - 1], ids[end_N] = self._cls, self._sep, self._sep
        if self.next_sentence:
            types[expand(b_at_N, b_length_N + 1)] = 1
        is_first_T = np.zeros(len(at_T), bool)
        is_first_T[(np.cumsum(length) - length)[length > 0]] = True
        sample_T = np.repeat(np.arange(len(start_N)), a_length_N + b_length_N)
        return ids, types, Text(at_T, sample_T, is_first_T, self.seq_len)


def open_phase(folder: Path, spec: JobSpec, phase: Phase, progress: Progress | None = None) -> PreTrainingData:
    """Open a prepared corpus as a phase of a job reads it."""
    return PreTrainingData(
        folder,
        seq_len=phase.seq_len,
        seed=spec.seed,
        mask_probability=spec.data.mask_probability,
        whole_word=spec.data.whole_word,
        next_sentence=spec.data.next_sentence,
        packing=spec.data.packing,
        short_sequences=spec.data.short_sequences,
        progress=progress,
    )


def _packed(start_N: I64, length_N: I64, at: I64, shape: tuple[int, int]) -> Packed:
    """Describe packed rows; `at` is where the tokens of all samples stand."""
    positions = np.zeros(shape, np.int64)
    positions.reshape(-1)[at] = at - np.repeat(start_N, length_N)
    row_ends = np.arange(1, shape[0] + 1) * shape[1]
    boundaries = np.unique(np.concatenate([start_N, start_N + length_N, row_ends]))
    return Packed(
        position_ids=torch.from_numpy(positions),
        starts=torch.from_numpy(start_N),
        boundaries=torch.from_numpy(boundaries),
    )


def _places(drawn: Drawn, seq_len: int) -> tuple[I64, I64]:
    """Return where each sample begins in the flattened batch, and its number in its row, from 1."""
    before_N = np.cumsum(drawn.length) - drawn.length
    is_first_N = np.diff(drawn.row, prepend=-1) > 0
    first_N = np.flatnonzero(is_first_N)[np.cumsum(is_first_N) - 1]  # number of the first sample of the same row
    return drawn.row * seq_len + before_N - before_N[first_N], np.arange(len(before_N)) - first_N + 1
