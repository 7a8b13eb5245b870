"""Which tokens a sample takes: documents are cut into chunks, a chunk into segment A and its continuation B.

A chunk is as many whole sentences as fit into a sample; an epoch visits each chunk once. The border between A and B
is a sentence border inside the chunk. B runs on behind its border until the sample is full or the document ends, be it
the real continuation or taken from another document, so that its length and its last word do not tell which it is.
A chunk of one sentence borrows the next sentence of its document, or else the previous one, to have a border. A
document of one sentence has nothing to continue with: its B is always random. Where the corpus is a single document,
there is no other to take B from: B is always the real one.

Suffixes: B samples of a batch, N chunks.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.corpus.shards import Shards

from .draws import Purpose, below, draw

I64 = NDArray[np.int64]


class Pairs(NamedTuple):
    """The segments of a batch of samples, as token positions in the shards; each field has one entry a sample."""

    a: I64
    a_length: I64
    b: I64
    b_length: I64
    is_random: NDArray[np.bool_]


class Chunks:
    """The chunks of a corpus for samples of at most `room` tokens, special tokens not counted."""

    def __init__(self, shards: Shards, room: int) -> None:
        self.room, self._offsets = room, shards.sentences
        starts_N = _chunk_starts(shards, room)
        ends_N = np.append(starts_N[1:], shards.manifest.sentences)
        document_N = np.searchsorted(shards.documents, starts_N, side="right") - 1
        first_N, last_N = shards.documents[document_N], shards.documents[document_N + 1]
        single_N = ends_N - starts_N == 1
        extends_N = single_N & (ends_N < last_N)
        self._start_N = starts_N - (single_N & ~extends_N & (starts_N > first_N))
        self._end_N = ends_N + extends_N
        self._lonely_N = self._end_N - self._start_N == 1
        self._document_end_N = self._offsets[last_N]
        self._siblings_from_N = np.searchsorted(starts_N, first_N)
        self._siblings_to_N = np.searchsorted(starts_N, last_N)
        self._has_others = shards.manifest.documents > 1

    def __len__(self) -> int:
        return len(self._start_N)

    def pairs(self, seed: int, index_B: I64, chunk_B: I64) -> Pairs:
        """Draw the segments of the samples with these global indices and chunks."""
        border_B = self._border(chunk_B, draw(seed, Purpose.BORDER, index_B))
        lonely_B = self._lonely_N[chunk_B]
        a_end_B = self._offsets[np.where(lonely_B, self._end_N[chunk_B], border_B)]
        a_length_B = a_end_B - self._offsets[self._start_N[chunk_B]]
        # Sentences longer than a sample: A gives up its head, but never more than B needs or half of the room.
        continuation_B = self._offsets[self._end_N[chunk_B]] - self._offsets[border_B]
        a_length_B = np.minimum(a_length_B, self.room - np.minimum(continuation_B, self.room - self.room // 2))

        is_random_B = lonely_B | (draw(seed, Purpose.NEXT, index_B) >> np.uint64(63) == 1)
        is_random_B &= self._has_others
        b_chunk_B = np.where(is_random_B, self._other_document(chunk_B, seed, index_B), chunk_B)
        other_border_B = self._border(b_chunk_B, draw(seed, Purpose.OTHER_BORDER, index_B))
        b_B = self._offsets[np.where(is_random_B, other_border_B, border_B)]
        b_length_B = np.minimum(self._document_end_N[b_chunk_B] - b_B, self.room - a_length_B)
        return Pairs(a_end_B - a_length_B, a_length_B, b_B, b_length_B, is_random_B)

    def _border(self, chunk_B: I64, bits_B: NDArray[np.uint64]) -> I64:
        """Pick the first sentence of segment B: any of the chunk but its first, if it has more than one."""
        start_B, end_B = self._start_N[chunk_B], self._end_N[chunk_B]
        inner_B = end_B - start_B - 1
        border_B: I64 = start_B + np.where(inner_B > 0, 1 + below(bits_B, np.maximum(inner_B, 1)), 0)
        return border_B

    def _other_document(self, chunk_B: I64, seed: int, index_B: I64) -> I64:
        """Pick a chunk uniformly from those of all other documents; without meaning where there is no other."""
        start_B, end_B = self._siblings_from_N[chunk_B], self._siblings_to_N[chunk_B]
        others_B = np.maximum(len(self) - (end_B - start_B), 1)
        pick_B = below(draw(seed, Purpose.OTHER, index_B), others_B)
        return pick_B + (pick_B >= start_B) * (end_B - start_B)


def _chunk_starts(shards: Shards, room: int) -> I64:
    """Fill chunks greedily with whole sentences of one document; a sentence that is too long is a chunk."""
    # Counting a long sentence as `room` tokens makes it fit exactly.
    ends = np.cumsum(np.minimum(np.diff(shards.sentences), room))
    begins = np.append(0, ends[:-1])
    document_ends = np.repeat(shards.documents[1:], np.diff(shards.documents))
    following = np.minimum(np.searchsorted(ends, begins + room, side="right"), document_ends)
    # Each chunk starts where the one before ends: a chain that only a loop can follow. Indexing a memoryview costs
    # a third of indexing an array, and no copy.
    step, starts, sentence = following.data, [], 0
    while sentence < len(following):
        starts.append(sentence)
        sentence = step[sentence]
    return np.array(starts, np.int64)
