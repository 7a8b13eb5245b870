"""The tokens of units → documents, in the order of the text. A document may begin in one unit and end in another."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .outcome import Tokens


class Document(NamedTuple):
    """The tokens of a document."""

    tokens: NDArray[np.uint16]
    """Of all its sentences, at least one. (tokens,)"""
    lengths: NDArray[np.int32]
    """Number of tokens of each sentence. (sentences,)"""
    is_held_out: bool
    """Whether it is kept from training."""


def documents(outcomes: Iterable[Tokens]) -> Iterator[Document]:
    """Yield the documents of a text, given by all its units in order; empty ones are left out."""
    pieces: list[Document] = []
    for outcome in outcomes:
        for segment, piece in enumerate(_segments(outcome)):
            if segment and pieces:  # a border
                yield _joined(pieces)
                pieces = []
            if len(piece.tokens):
                pieces.append(piece)
    if pieces:
        yield _joined(pieces)


def _segments(outcome: Tokens) -> Iterator[Document]:
    sentences = np.cumsum(np.append(0, outcome.sentences))
    tokens = np.cumsum(np.append(0, outcome.lengths))[sentences]
    borders = zip(pairwise(tokens.tolist()), pairwise(sentences.tolist()), outcome.is_held_out.tolist(), strict=True)
    for (first, last), (begin, end), is_held_out in borders:
        yield Document(outcome.tokens[first:last], outcome.lengths[begin:end], is_held_out)


def _joined(pieces: list[Document]) -> Document:
    if len(pieces) == 1:
        return pieces[0]
    tokens, lengths, is_held_out = zip(*pieces, strict=True)
    return Document(np.concatenate(tokens), np.concatenate(lengths), any(is_held_out))
