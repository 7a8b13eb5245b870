"""Which tokens a sample takes: documents are cut into chunks, a chunk into segment A and its continuation B.

A chunk is as many whole sentences as fit into a sample; an epoch visits each chunk once. The border between A and B
is a sentence border inside the chunk. B runs on beyond its border until the sample is full or the document ends, be it
the real continuation or taken from another document, so that its length and its last word do not tell which it is.
A chunk of one sentence borrows the next sentence of its document, or else the previous one, to have a border. A
document of one sentence has nothing to continue with: its B is always random. Where the corpus is a single document,
there is no other to take B from: B is always the real one.

A sentence that would leave less than an eighth of a sample to its partner is cut into pieces of a quarter at most,
which count as sentences from then on. So a sample with the real continuation shows all of its chunk, and in the course
of the epochs every token of the text is seen, even of a text without a single full stop.

Suffixes: B samples of a batch, N chunks, L long sentences, C cuts inside of them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.contract.sources import CorpusError

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
    """The chunks of a corpus for samples of at most `room` tokens, special tokens not counted.

    Args:
        sentences: First token of each sentence, and the number of tokens.
        documents: First sentence of each document, and the number of sentences.
        room: Tokens of a sample.

    Raises:
        CorpusError: the corpus is a single short sentence.
    """

    def __init__(self, sentences: I64, documents: I64, room: int) -> None:
        self.room = room
        self._offsets, documents = _cut_long_sentences(sentences, documents, room)
        starts_N = _chunk_starts(self._offsets, documents, room)
        ends_N = np.append(starts_N[1:], len(self._offsets) - 1)
        document_N = np.searchsorted(documents, starts_N, side="right") - 1
        first_N, last_N = documents[document_N], documents[document_N + 1]
        single_N = ends_N - starts_N == 1
        extends_N = single_N & (ends_N < last_N)
        borrows_N = single_N & ~extends_N & (starts_N > first_N)
        self._start_N, self._end_N = starts_N - borrows_N, ends_N + extends_N
        self._lonely_N = self._end_N - self._start_N == 1
        # A gives up its head where the chunk is B, which is to be seen whole.
        self._most_a_N = room - np.where(borrows_N, self._offsets[ends_N] - self._offsets[starts_N], 1)
        self._document_end_N = self._offsets[last_N]
        self._siblings_from_N = np.searchsorted(starts_N, first_N)
        self._siblings_to_N = np.searchsorted(starts_N, last_N)
        self._has_others = len(documents) > 2
        if not self._has_others and self._lonely_N.all():
            raise CorpusError(
                f"data.corpus: a single sentence of {self._offsets[-1]} tokens, from which no pair of segments can be "
                "taken; give more text, one paragraph a line and a blank line between documents"
            )

    def __len__(self) -> int:
        return len(self._start_N)

    def pairs(self, seed: int, index_B: I64, chunk_B: I64) -> Pairs:
        """Draw the segments of the samples with these global indices and chunks."""
        border_B = self._border(chunk_B, draw(seed, Purpose.BORDER, index_B))
        lonely_B = self._lonely_N[chunk_B]
        a_end_B = self._offsets[np.where(lonely_B, self._end_N[chunk_B], border_B)]
        a_length_B = np.minimum(a_end_B - self._offsets[self._start_N[chunk_B]], self._most_a_N[chunk_B])

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


def _cut_long_sentences(sentences: I64, documents: I64, room: int) -> tuple[I64, I64]:
    """Return the offsets with borders inside of sentences that are too long to share a sample with a partner."""
    longest, most = room - max(1, room // 8), max(1, room // 4)
    lengths = np.diff(sentences)
    long_L = np.flatnonzero(lengths > longest)
    if not long_L.size:
        return sentences, documents
    cuts_L = -(-lengths[long_L] // most) - 1
    ends_L = np.cumsum(cuts_L)
    # The pieces of a sentence are equal but for one token.
    piece_C = np.arange(ends_L[-1]) - np.repeat(ends_L - cuts_L, cuts_L) + 1
    cut_C = piece_C * np.repeat(lengths[long_L], cuts_L) // np.repeat(cuts_L + 1, cuts_L)
    at_C = np.repeat(long_L, cuts_L)
    before = np.append(0, ends_L)[np.searchsorted(long_L, documents)]
    return np.insert(sentences, at_C + 1, sentences[at_C] + cut_C), documents + before


def _chunk_starts(sentences: I64, documents: I64, room: int) -> I64:
    """Fill chunks greedily with whole sentences of one document."""
    document_ends = np.repeat(documents[1:], np.diff(documents))
    following = np.minimum(np.searchsorted(sentences[1:], sentences[:-1] + room, side="right"), document_ends)
    # Each chunk starts where the one before ends: a chain that only a loop can follow. Indexing a memoryview costs
    # a third of indexing an array, and no copy.
    step, starts, sentence = following.data, [], 0
    while sentence < len(following):
        starts.append(sentence)
        sentence = step[sentence]
    return np.array(starts, np.int64)
