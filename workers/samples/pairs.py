"""Which tokens a sample takes: documents are cut into chunks, a chunk into segment A and its continuation B.

A chunk is as many whole sentences as fit into a sample; an epoch visits each chunk once. The border between A and B
is a sentence border inside the chunk. B runs on beyond its border until the sample is full or the document ends, be it
the real continuation or taken from another document, so that its length and its last word do not tell which it is.
A chunk of one sentence borrows the next sentence of its document, or else the previous one, to have a border. A
document of one sentence has nothing to continue with: its B is always random. Where the corpus is a single document,
there is no other to take B from: B is always the real one.

A sentence is a piece as `borders` counts them: one that is too long for a sample was cut. So a sample with the real
continuation shows all of its chunk, and in the course of the epochs every token of the text is seen, even of a text
without a single full stop.

A share of the samples is short: as in BERT's own preparation their length is drawn at random, the longer segment is cut
first, A at its head and B at its end. What they leave out is seen in other epochs.

Suffixes: B samples of a batch.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.contract.problems import counted
from workers.contract.sources import CorpusError
from workers.corpus.rows.index import Index

from .draws import Purpose, below, draw, happens

I64 = NDArray[np.int64]


class Pairs(NamedTuple):
    """The segments of samples, as token positions in the shards; each field has one entry a sample."""

    a: I64
    a_length: I64
    b: I64
    b_length: I64
    is_random: NDArray[np.bool_]


class _Chunk(NamedTuple):
    """The chunks of a batch; each field has one entry a sample."""

    start: I64
    """First piece."""
    end: I64
    """The piece after the last one."""
    is_lonely: NDArray[np.bool_]
    """A document of one piece."""
    most_a: I64
    """Tokens that A may have, so that B is seen."""
    first: I64
    """First piece of the document."""
    last: I64
    """The piece after the document's last one."""
    document_end: I64
    """The token after the document's last one."""


class Chunks:
    """The chunks of a corpus for samples of at most `room` tokens, special tokens not counted.

    Args:
        index: Where they begin.
        room: Tokens of a sample.
        short: Share of samples that are cut to a random length.

    Raises:
        CorpusError: the corpus is a single short sentence.
    """

    def __init__(self, index: Index, room: int, short: float = 0.0) -> None:
        self._borders, self._starts = index
        self._room, self._short = room, short
        self._has_others = self._borders.documents > 1
        if not self._has_others and len(self._borders) == 1:
            tokens = self._borders.token(np.array([1])).item()
            raise CorpusError(
                f"data.corpus: a single sentence of {counted(tokens, 'token')}, from which no pair of segments can be "
                "taken; give more text, one paragraph a line and a blank line between documents"
            )

    def __len__(self) -> int:
        return len(self._starts) - 1

    def pairs(self, seed: int, index_B: I64, chunk_B: I64) -> Pairs:
        """Draw the segments of the samples with these global indices and chunks."""
        own = self._chunk(chunk_B)
        border_B = _border(own, draw(seed, Purpose.BORDER, index_B))
        a_end_B = self._borders.token(np.where(own.is_lonely, own.end, border_B))
        a_length_B = np.minimum(a_end_B - self._borders.token(own.start), own.most_a)

        is_random_B = own.is_lonely | (draw(seed, Purpose.NEXT, index_B) >> np.uint64(63) == 1)
        is_random_B &= self._has_others
        other = self._chunk(np.where(is_random_B, self._other_document(own, seed, index_B), chunk_B))
        other_border_B = _border(other, draw(seed, Purpose.OTHER_BORDER, index_B))
        b_B = self._borders.token(np.where(is_random_B, other_border_B, border_B))
        b_length_B = np.minimum(other.document_end - b_B, self._room - a_length_B)
        a_length_B, b_length_B = self._shorten(seed, index_B, a_length_B, b_length_B)
        return Pairs(a_end_B - a_length_B, a_length_B, b_B, b_length_B, is_random_B)

    def _chunk(self, chunk_B: I64) -> _Chunk:
        start_B, end_B = self._starts[chunk_B], self._starts[chunk_B + 1]
        document_B = self._borders.document(start_B)
        first_B, last_B = self._borders.first(document_B), self._borders.first(document_B + 1)
        single_B = end_B - start_B == 1
        extends_B = single_B & (end_B < last_B)
        borrows_B = single_B & ~extends_B & (start_B > first_B)
        # A gives up its head where the chunk is B, which is to be seen whole.
        b_B = np.where(borrows_B, self._borders.token(end_B) - self._borders.token(start_B), 1)
        start_B, end_B = start_B - borrows_B, end_B + extends_B
        return _Chunk(
            start=start_B,
            end=end_B,
            is_lonely=end_B - start_B == 1,
            most_a=self._room - b_B,
            first=first_B,
            last=last_B,
            document_end=self._borders.token(last_B),
        )

    def _other_document(self, own: _Chunk, seed: int, index_B: I64) -> I64:
        """Pick a chunk uniformly from those of all other documents; without meaning where there is no other."""
        start_B, end_B = np.searchsorted(self._starts, own.first), np.searchsorted(self._starts, own.last)
        others_B = np.maximum(len(self) - (end_B - start_B), 1)
        pick_B = below(draw(seed, Purpose.OTHER, index_B), others_B)
        other_B: I64 = pick_B + (pick_B >= start_B) * (end_B - start_B)
        return np.where(self._has_others, other_B, 0)

    def _shorten(self, seed: int, index_B: I64, a_length_B: I64, b_length_B: I64) -> tuple[I64, I64]:
        if not self._short:
            return a_length_B, b_length_B
        drawn_B = 2 + below(draw(seed, Purpose.LENGTH, index_B), self._room - 1)
        room_B = np.where(happens(draw(seed, Purpose.SHORT, index_B), self._short), drawn_B, self._room)
        a_length_B = np.minimum(a_length_B, np.maximum(room_B - b_length_B, room_B - room_B // 2))
        return a_length_B, np.minimum(b_length_B, room_B - a_length_B)


def _border(chunk: _Chunk, bits_B: NDArray[np.uint64]) -> I64:
    """Pick the first piece of segment B: any of the chunk but its first, if it has more than one."""
    inner_B = chunk.end - chunk.start - 1
    border_B: I64 = chunk.start + np.where(inner_B > 0, 1 + below(bits_B, np.maximum(inner_B, 1)), 0)
    return border_B
