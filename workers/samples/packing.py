"""Rows that hold several samples, and rows of a single segment: which tokens they take.

A row holds as many whole pieces of text as fit, each document's part of it being a sample with its own special tokens.
Where the last document goes on, its sample runs on until the row is full; where it has ended, the next ones fill the
row, as long as a sample is worth it. So hardly a position is padding, and which rows there are depends on the text
alone.

A sample is split into A and B at the border of a piece inside of it, or in the middle where there is none. A random B
is taken from another document. It must not be told by its looks: where the real one would end with its document, the
random one ends with a piece and has as many whole ones as there is room for; elsewhere both are cut where the row is
full. It begins with a piece, or in the middle of one where A ends in the middle. What it leaves free, the end of the
row takes.

A share of the rows whose last document goes on is split: the last sample ends at a random token, and the rest is a
sample of its own. Where there is no packing, the rest is left out.

Suffixes: B rows of a batch, P samples of all rows.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from workers.contract.sources import CorpusError
from workers.corpus.rows.index import Index, Layout

from .draws import Purpose, below, draw, happens
from .pairs import Pairs

I64 = NDArray[np.int64]
FEWEST = 8
"""Tokens of text that are worth a sample of their own at the end of a row."""
ATTEMPTS = 8
"""To pick a piece that is short enough."""


class Parts(NamedTuple):
    """Samples of a batch of rows before they are split into segments; each field has one entry a sample."""

    row: I64
    """Number of the row in the batch."""
    slot: I64
    """Number of the sample in the row; some may be left out."""
    document: I64
    begin: I64
    """First token."""
    end: I64
    """The token after the last one."""
    is_closing: NDArray[np.bool_]
    """Whether it is cut where the row is full, and not where its document ends."""

    def where(self, chosen: NDArray[np.bool_]) -> Self:
        """Return the chosen ones."""
        return self._replace(**{name: field[chosen] for name, field in self._asdict().items()})


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
        whole = self._whole(row_B)
        last_B = np.searchsorted(whole.row, np.arange(len(row_B)), side="right") - 1
        left_B = np.full(len(row_B), self._layout.seq_len)
        drawn: list[tuple[Parts, Pairs]] = []

        def draw_pairs(parts: Parts) -> None:
            pairs = self._pairs(parts, seed, index_B)
            np.subtract.at(left_B, parts.row, pairs.a_length + pairs.b_length + self._layout.special)
            drawn.append((parts, pairs))

        draw_pairs(whole.where(~whole.is_closing))
        closing = self._run_on(whole.where(whole.is_closing), left_B)
        draw_pairs(self._split(closing, seed, index_B) if self._short else closing)
        following = whole.where(np.isin(np.arange(len(whole.row)), last_B) & ~whole.is_closing)
        while (following := self._next(following, left_B)).row.size:
            draw_pairs(following)
        row_P, slot_P = (np.concatenate([parts[field] for parts, _ in drawn]) for field in range(2))
        order_P = np.lexsort((slot_P, row_P))
        columns = (np.concatenate(column)[order_P] for column in zip(*(pairs for _, pairs in drawn), strict=True))
        return row_P[order_P], Pairs(*columns)

    def _whole(self, row_B: I64) -> Parts:
        """Find the samples that the whole pieces of each row make."""
        borders = self._borders
        start_B, end_B = self._starts[row_B], self._starts[row_B + 1]
        document_B = borders.document(start_B)
        count_B = borders.document(end_B - 1) - document_B + 1
        row_P = np.repeat(np.arange(len(row_B)), count_B)
        slot_P = np.arange(len(row_P)) - np.repeat(np.cumsum(count_B) - count_B, count_B)
        document_P = document_B[row_P] + slot_P
        first_P, behind_P = borders.first(document_P), borders.first(document_P + 1)
        begin_P = borders.token(np.maximum(first_P, start_B[row_P]))
        end_P = borders.token(np.minimum(behind_P, end_B[row_P]))
        # A single token has no second segment: it takes the one before it into A.
        begin_P -= (self._segments == 2) & (end_P - begin_P == 1) & (begin_P > borders.token(first_P))
        is_closing_P = (behind_P > end_B[row_P]) | (not self._layout.packing)
        return Parts(row_P, slot_P, document_P, begin_P, end_P, is_closing_P)

    def _run_on(self, closing: Parts, left_B: I64) -> Parts:
        """Let the last samples go on until their rows are full or their documents end."""
        full_P = closing.begin + left_B[closing.row] - self._layout.special
        return closing._replace(end=np.minimum(full_P, self._document_end(closing.document)))

    def _next(self, parts: Parts, left_B: I64) -> Parts:
        """Take the documents after these, the first one after the last, where their rows have room for a sample."""
        room_P = left_B[parts.row] - self._layout.special
        chosen = ~parts.is_closing & (room_P >= FEWEST)
        row_P, slot_P = parts.row[chosen], parts.slot[chosen] + 1
        document_P = (parts.document[chosen] + 1) % self._borders.documents
        begin_P = self._borders.token(self._borders.first(document_P))
        full_P, document_end_P = begin_P + room_P[chosen], self._document_end(document_P)
        return Parts(row_P, slot_P, document_P, begin_P, np.minimum(full_P, document_end_P), full_P < document_end_P)

    def _document_end(self, document: I64) -> I64:
        return self._borders.token(self._borders.first(document + 1))

    def _split(self, closing: Parts, seed: int, index_B: I64) -> Parts:
        """Cut the last sample of a share of the rows at a random token."""
        row_P, length_P = closing.row, closing.end - closing.begin
        if self._layout.packing:
            length_P = length_P - self._layout.special  # of the second one
        cut_P = 2 + below(draw(seed, Purpose.LENGTH, index_B)[row_P], np.maximum(length_P - 3, 1))
        is_split_P = happens(draw(seed, Purpose.SHORT, index_B)[row_P], self._short) & closing.is_closing
        is_split_P &= length_P >= 2 * FEWEST
        middle_P, end_P = closing.begin + cut_P, closing.begin + length_P
        first = closing._replace(end=np.where(is_split_P, middle_P, closing.end))
        if not self._layout.packing:
            return first
        rest = closing._replace(slot=closing.slot + 1, begin=middle_P, end=end_P).where(is_split_P)
        return Parts(*(np.concatenate([a, b]) for a, b in zip(first, rest, strict=True)))

    def _pairs(self, parts: Parts, seed: int, index_B: I64) -> Pairs:
        """Split samples into their segments, and exchange a half of the second ones."""
        length_P = parts.end - parts.begin
        if self._segments == 1:
            nothing = np.zeros_like(length_P)
            return Pairs(parts.begin, length_P, nothing, nothing, nothing > 0)
        index_P, borders = index_B[parts.row], self._borders
        piece_P = borders.at(parts.begin)
        inner_P = borders.at(parts.end - 1) - piece_P  # pieces that begin inside of the sample
        bits_P = draw(seed, Purpose.BORDER, index_P, parts.slot)
        inner_border_P = borders.token(piece_P + np.minimum(1 + below(bits_P, np.maximum(inner_P, 1)), inner_P))
        border_P: I64 = np.where(inner_P > 0, inner_border_P, parts.begin + np.maximum(length_P // 2, 1))
        is_random_P = draw(seed, Purpose.NEXT, index_P, parts.slot) >> np.uint64(63) == 1
        is_random_P = (is_random_P | (border_P == parts.end)) & self._has_others
        wanted_P = np.maximum(parts.end - border_P, 1)
        other_P, length_P = self._other_document(parts, seed, index_P, wanted_P, inner_P == 0)
        b_P = np.where(is_random_P, other_P, border_P)
        b_length_P = np.where(is_random_P, length_P, parts.end - border_P)
        return Pairs(parts.begin, border_P - parts.begin, b_P, b_length_P, is_random_P)

    def _other_document(
        self, parts: Parts, seed: int, index_P: I64, wanted_P: I64, is_middle_P: NDArray[np.bool_]
    ) -> tuple[I64, I64]:
        """Pick a random B of at most `wanted_P` tokens; return its first token and its length."""
        borders = self._borders
        piece_P = self._other_piece(parts, seed, index_P, wanted_P)
        document_P = borders.document(piece_P)
        first_P, behind_P = borders.first(document_P), borders.first(document_P + 1)
        document_begin_P, document_end_P = borders.token(first_P), borders.token(behind_P)
        # Where the row is full it is cut; so it begins further ahead where the document would end before.
        latest_P = borders.at(np.maximum(document_end_P - wanted_P, document_begin_P))
        # Elsewhere it ends with the piece that was picked, and begins as far ahead as there is room.
        end_P = borders.token(piece_P + 1)
        earliest_P = borders.at(np.maximum(end_P - wanted_P, document_begin_P + 1) - 1) + 1
        earliest_P = np.where(end_P - wanted_P <= document_begin_P, first_P, np.minimum(earliest_P, piece_P))
        piece_P = np.where(parts.is_closing, np.minimum(piece_P, latest_P), earliest_P)
        end_P = np.where(parts.is_closing, document_end_P, end_P)
        begin_P = borders.token(piece_P)
        middle_P = begin_P + (borders.token(piece_P + 1) - begin_P) // 2
        begin_P = np.where(is_middle_P, middle_P, begin_P)
        return begin_P, np.minimum(end_P - begin_P, wanted_P)

    def _other_piece(self, parts: Parts, seed: int, index_P: I64, wanted_P: I64) -> I64:
        """Pick a piece of another document; where it must not be cut, a few times until one is short enough."""
        borders = self._borders
        first_P, behind_P = borders.first(parts.document), borders.first(parts.document + 1)
        others_P = np.maximum(len(borders) - (behind_P - first_P), 1)
        picked_P, is_left_P = np.zeros_like(first_P), np.ones(len(first_P), bool)
        for attempt in range(ATTEMPTS):
            piece_P = below(draw(seed, Purpose.OTHER, index_P, parts.slot + (attempt << 32)), others_P)
            piece_P += (piece_P >= first_P) * (behind_P - first_P)
            piece_P = np.minimum(piece_P, len(borders) - 1)  # where there is no other document
            picked_P = np.where(is_left_P, piece_P, picked_P)
            length_P = borders.token(picked_P + 1) - borders.token(picked_P)
            is_left_P = ~parts.is_closing & (length_P > wanted_P)
            if not is_left_P.any():
                break
        return picked_P
