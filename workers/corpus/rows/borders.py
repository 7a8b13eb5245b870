"""Where a text may be cut: between its sentences, and inside of those that are too long.

A sentence that would leave less than an eighth of a sample to its partner is cut into pieces of a quarter at most,
which count as sentences from then on. Few sentences are so long, so only these are stored; the numbers of all others
follow. The arrays are mapped into memory: a text of billions of tokens has hundreds of millions of sentences.

Suffixes: L long sentences, V pieces (whole sentences are pieces too), D documents.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
BLOCK = 2**20
"""How many sentences are looked at together."""


class Borders:
    """The pieces of a text, numbered from 0. Methods take and return arrays of one shape.

    Args:
        sentences: First token of each sentence, and the number of tokens.
        documents: First sentence of each document, and the number of sentences.
        long_L: Numbers of the sentences that are cut, ascending.
        first_L: Number of the first piece of each of them.
        pieces: How many pieces there are in all.
    """

    def __init__(self, sentences: I64, documents: I64, long_L: I64, first_L: I64, pieces: int) -> None:
        self._sentences, self._documents = sentences, documents
        self._long_L, self._first_L, self._pieces = long_L, first_L, pieces

    def __len__(self) -> int:
        return self._pieces

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self._documents) - 1

    def token(self, piece: I64) -> I64:
        """Return the first token of a piece; for the number of pieces, the number of tokens."""
        sentence, number, count = self._place(piece)
        begin: I64 = self._sentences[sentence]
        cut = np.flatnonzero(number)
        if cut.size:
            # The pieces of a sentence are equal but for one token.
            length = self._sentences[sentence[cut] + 1] - begin[cut]
            begin[cut] += number[cut] * length // count[cut]
        return begin

    def document(self, piece: I64) -> I64:
        """Return the number of the document that a piece belongs to."""
        return np.searchsorted(self._documents, self._place(piece)[0], side="right") - 1

    def at(self, token: I64) -> I64:
        """Return the piece that holds a token."""
        sentence = np.searchsorted(self._sentences, token, side="right") - 1
        piece: I64 = sentence + self._added(np.searchsorted(self._long_L, sentence))
        _, _, count = self._place(piece)
        cut = np.flatnonzero(count > 1)
        if cut.size:
            begin, end = self._sentences[sentence[cut]], self._sentences[sentence[cut] + 1]
            piece[cut] += ((token[cut] - begin + 1) * count[cut] - 1) // (end - begin)
        return piece

    def first(self, document: I64) -> I64:
        """Return the first piece of a document; for the number of documents, the number of pieces."""
        sentence: I64 = self._documents[document]
        return sentence + self._added(np.searchsorted(self._long_L, sentence))

    def _place(self, piece: I64) -> tuple[I64, I64, I64]:
        """Return the sentence of a piece, the number of the piece in it, and how many pieces it has."""
        if not len(self._long_L):
            return piece, np.zeros_like(piece), np.ones_like(piece)
        at = np.searchsorted(self._first_L, piece, side="right") - 1
        before = np.maximum(at, 0)
        count = self._added(before + 1) - self._added(before) + 1
        number = piece - self._first_L[before]
        is_cut = (at >= 0) & (number < count)
        sentence = np.where(is_cut, self._long_L[before], piece - self._added(at + 1))
        return sentence, np.where(is_cut, number, 0), np.where(is_cut, count, 1)

    def _added(self, long: I64) -> I64:
        """Return by how much the cuts of the first `long` long sentences raise the numbers behind them."""
        if not len(self._long_L):
            return np.zeros_like(long)
        inner = np.minimum(long, len(self._long_L) - 1)
        total = self._pieces - (len(self._sentences) - 1)
        return np.where(long < len(self._long_L), self._first_L[inner] - self._long_L[inner], total)


def find_long(sentences: I64, room: int) -> Iterator[tuple[I64, I64]]:
    """Find the sentences that are too long for samples of `room` tokens, block by block.

    Yields:
        Their numbers, and the number of pieces of each.
    """
    longest, most = room - max(1, room // 8), max(1, room // 4)
    for start in range(0, len(sentences) - 1, BLOCK):
        lengths = np.diff(sentences[start : start + BLOCK + 1])
        long = np.flatnonzero(lengths > longest)
        yield long + start, -(-lengths[long] // most)
