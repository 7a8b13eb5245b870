"""What a unit of text gives: arrays, which travel between processes and are kept on disk as one string of bytes.

A unit may begin and end within a document. So its paragraphs come in segments: the first goes on with the document
that the unit before left open, each border between two segments ends a document, and the last segment stays open.

Shapes: P paragraphs, S segments, N sentences, T tokens.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    def pack(self) -> bytes:
        """Return the arrays as bytes."""
        stream = io.BytesIO()
        for field in fields(self):
            np.save(stream, getattr(self, field.name), allow_pickle=False)
        return stream.getvalue()

    @classmethod
    def unpack(cls, content: bytes) -> Self:
        """Return what was packed."""
        stream = io.BytesIO(content)
        return cls(*(np.load(stream, allow_pickle=False) for _ in fields(cls)))


@dataclass(frozen=True, slots=True, eq=False)
class Outline(_Outcome):
    """Which paragraphs a unit has."""

    digests: NDArray[np.void]
    """Hash of each paragraph, of `DIGEST_BYTES`. (P,)"""
    paragraphs: NDArray[np.int64]
    """Number of paragraphs in each segment. (S,)"""


@dataclass(frozen=True, slots=True, eq=False)
class Tokens(_Outcome):
    """The tokens of a unit."""

    tokens: NDArray[np.uint16]
    """(T,)"""
    lengths: NDArray[np.int32]
    """Number of tokens of each sentence, none of them 0. (N,)"""
    sentences: NDArray[np.int64]
    """Number of sentences in each segment. (S,)"""
    is_held_out: NDArray[np.bool_]
    """Whether a segment belongs to a document that is kept from training. (S,)"""


class Segments:
    """Paragraphs, each after the number of its segment; `count` is right once all were taken.

    Several ends of a document in a row count as one.
    """

    def __init__(self, paragraphs: Iterable[str | None]) -> None:
        self._paragraphs = paragraphs
        self.count = 1

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Yield number and paragraph."""
        is_empty = False  # the first segment may go on with a document, so an end before any paragraph counts
        for paragraph in self._paragraphs:
            if paragraph is not None:
                yield self.count - 1, paragraph
                is_empty = False
            elif not is_empty:
                self.count += 1
                is_empty = True
