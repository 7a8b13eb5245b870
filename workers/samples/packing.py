"""Rows that hold several samples, and rows of a single segment: which tokens they take.

A row holds as many whole pieces of text as fit, each document's part of it being a sample with its own special tokens.
Its last sample runs on beyond its last piece until the row is full or the document ends; where the document has ended,
the beginning of the next one fills the row, if a sample is worth it. So hardly a position is padding, and which rows
there are depends on the text alone: what is drawn below changes no sample's place.

A sample is split into A and B at the border of a piece inside of it, or in the middle where there is none. A random B
is as long as the real one would have been, and is taken from a document that has so many tokens where there is one: it
begins with a piece of another document, or in the middle of one where A ends in the middle.

A share of the rows is split: the last sample ends at a random token, and the rest is a sample of its own. Where there
is no packing, the rest is left out.

Suffixes: B rows of a batch, P samples of all rows.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.contract.sources import CorpusError
from workers.corpus.rows.index import Index, Layout

from .draws import Purpose, below, draw, happens
from .pairs import Pairs

I64 = NDArray[np.int64]
FEWEST = 8
"""Tokens of text that are worth a sample of their own at the end of a row."""


class Parts(NamedTuple):
    """The samples of a batch of rows, in their order; each field has one entry a sample."""

    row: I64
    """Number of the row in the batch."""
    slot: I64
    """Number of the sample in the row."""
    document: I64
    begin: I64
    """First token."""
    end: I64
    """The token after the last one."""
    size: I64
    """Tokens of text that the row has room for in this place."""


class Packs:
    """The rows of a corpus, each of one or more samples.

    Args:
        index: Where they begin.
        layout: What was decided when they were found.
        short: Share of rows whose last sample is cut at random.

    Raises:
        CorpusError: pairs are asked for, and the corpus is a single token.
    """

    def __init__(self, index: Index, layout: Layout, short: float = 0.0) -> None:
        self._borders, self._starts = index
        self._layout, self._short = layout, short
        self._segments = 2 if layout.next_sentence else 1
        tokens = self._borders.token(np.array([len(self._borders)])).item()
        self._has_others = self._borders.documents > 1
        if self._segments == 2 and not self._has_others and tokens == 1:
            raise CorpusError("data.corpus: a single token, from which no pair can be taken; give more text")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def samples(self, seed: int, index_B: I64, row_B: I64) -> tuple[I64, Pairs]:
        """Draw the samples of the rows with these global indices; return their places in the batch and segments."""
        parts = self._parts(row_B)
        if self._short:
            parts = self._split(parts, seed, index_B)
        if self._segments == 1:
            nothing = np.zeros_like(parts.row)
            return parts.row, Pairs(parts.begin, parts.end - parts.begin, nothing, nothing, nothing > 0)
        return parts.row, self._pairs(parts, seed, index_B)

    def _parts(self, row_B: I64) -> Parts:
        """Find the samples of each row: those of its whole pieces, and what fills it up."""
        borders, special = self._borders, self._layout.special
        start_B, end_B = self._starts[row_B], self._starts[row_B + 1]
        document_B, last_B = borders.document(start_B), borders.document(end_B - 1)
        count_B = last_B - document_B + 2  # one more than there are, for the next document
        row_P = np.repeat(np.arange(len(row_B)), count_B)
        slot_P = np.arange(len(row_P)) - np.repeat(np.cumsum(count_B) - count_B, count_B)
        document_P = np.minimum(document_B[row_P] + slot_P, borders.documents - 1)
        is_next_P = slot_P == count_B[row_P] - 1
        first_P, behind_P = borders.first(document_P), borders.first(document_P + 1)
        begin_P = borders.token(np.maximum(first_P, np.where(is_next_P, 0, start_B[row_P])))
        end_P = borders.token(np.minimum(behind_P, np.where(is_next_P, len(borders), end_B[row_P])))
        # A single token has no second segment: it takes the one before it into A.
        begin_P -= (self._segments == 2) & (end_P - begin_P == 1) & (begin_P > borders.token(first_P))
        size_P = np.maximum(end_P - begin_P, self._segments)

        used_B = np.bincount(row_P, np.where(is_next_P, 0, size_P + special), len(row_B)).astype(np.int64)
        left_B = self._layout.seq_len - used_B
        last_P = np.cumsum(count_B) - 2  # the last sample of whole pieces, one for each row
        grown_B = np.minimum(left_B, borders.token(behind_P[last_P]) - end_P[last_P])
        end_P[last_P] += grown_B
        size_P[last_P] = np.maximum(size_P[last_P], end_P[last_P] - begin_P[last_P])
        left_B -= grown_B
        fills_B = self._layout.packing & (left_B >= special + FEWEST) & (last_B + 1 < borders.documents)
        next_P = last_P + 1
        end_P[next_P] = np.minimum(end_P[next_P], begin_P[next_P] + left_B - special)
        size_P[next_P] = end_P[next_P] - begin_P[next_P]
        stays_P = ~is_next_P | fills_B[row_P]
        return Parts(*(field[stays_P] for field in (row_P, slot_P, document_P, begin_P, end_P, size_P)))

    def _split(self, parts: Parts, seed: int, index_B: I64) -> Parts:
        """Cut the last sample of a share of the rows at a random token."""
        special, count = self._layout.special, len(index_B)
        used_B = np.bincount(parts.row, parts.size + special, count).astype(np.int64)
        last = np.searchsorted(parts.row, np.arange(count), side="right") - 1  # one for each row
        lacking_B = np.maximum(special - (self._layout.seq_len - used_B), 0) * self._layout.packing
        length_B = parts.end[last] - parts.begin[last] - lacking_B
        is_split_B = happens(draw(seed, Purpose.SHORT, index_B), self._short) & (length_B >= 2 * FEWEST)
        cut_B = 2 + below(draw(seed, Purpose.LENGTH, index_B), np.maximum(length_B - 3, 1))
        here, cut, length = last[is_split_B], cut_B[is_split_B], length_B[is_split_B]
        times = np.ones(len(parts.row), np.int64)
        if self._layout.packing:
            times[here] = 2
        split = Parts(*(np.repeat(field, times) for field in parts))
        first = (np.cumsum(times) - times)[here]
        split.end[first] = split.begin[first] + cut
        split.size[first] = cut
        if self._layout.packing:
            split.begin[first + 1] += cut
            split.end[first + 1] = split.begin[first] + length  # what is lacking for its special tokens is left out
            split.size[first + 1] = length - cut
            split.slot[first + 1] += 1
        return split

    def _pairs(self, parts: Parts, seed: int, index_B: I64) -> Pairs:
        index_P, borders = index_B[parts.row], self._borders
        piece_P = borders.at(parts.begin)
        inner_P = borders.at(parts.end - 1) - piece_P  # pieces that begin inside of the sample
        bits_P = draw(seed, Purpose.BORDER, index_P, parts.slot)
        inner_border_P = borders.token(piece_P + np.minimum(1 + below(bits_P, np.maximum(inner_P, 1)), inner_P))
        border_P: I64 = np.where(
            inner_P > 0, inner_border_P, parts.begin + np.maximum((parts.end - parts.begin) // 2, 1)
        )
        is_random_P = draw(seed, Purpose.NEXT, index_P, parts.slot) >> np.uint64(63) == 1
        is_random_P = (is_random_P | (border_P == parts.end)) & self._has_others
        wanted_P = parts.size - (border_P - parts.begin)
        other_P, other_end_P = self._other_document(parts, seed, index_P, wanted_P, inner_P == 0)
        b_P = np.where(is_random_P, other_P, border_P)
        end_P = np.where(is_random_P, np.minimum(other_P + wanted_P, other_end_P), parts.end)
        return Pairs(parts.begin, border_P - parts.begin, b_P, end_P - b_P, is_random_P)

    def _other_document(
        self, parts: Parts, seed: int, index_P: I64, wanted_P: I64, is_middle_P: NDArray[np.bool_]
    ) -> tuple[I64, I64]:
        """Pick where a random B begins, and where the document ends that it is taken from."""
        borders = self._borders
        first_P, behind_P = borders.first(parts.document), borders.first(parts.document + 1)
        others_P = np.maximum(len(borders) - (behind_P - first_P), 1)
        piece_P = below(draw(seed, Purpose.OTHER, index_P, parts.slot), others_P)
        piece_P += (piece_P >= first_P) * (behind_P - first_P)
        piece_P = np.minimum(piece_P, len(borders) - 1)  # where there is no other document
        document_P = borders.document(piece_P)
        end_P = borders.token(borders.first(document_P + 1))
        # A piece further ahead, where the document would end before the sample is full.
        latest_P = borders.at(np.maximum(end_P - wanted_P, borders.token(borders.first(document_P))))
        piece_P = np.minimum(piece_P, latest_P)
        begin_P, length_P = borders.token(piece_P), borders.token(piece_P + 1) - borders.token(piece_P)
        begin_P += np.where(is_middle_P, np.minimum(length_P // 2, np.maximum(end_P - wanted_P - begin_P, 0)), 0)
        return begin_P, end_P
