"""What is decided about paragraphs from the outlines of all units, in the order of the text.

Suffixes: P paragraphs of the whole text.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from workers.corpus.validation import is_held_out

from .outcome import Outline
from .tasks import HELD_OUT, REPEATED, Marks


def mark(outlines: Sequence[Outline], *, deduplicate: bool, share: float | None) -> list[Marks]:
    """Return the marks of each unit's paragraphs.

    Args:
        outlines: of all units, in the order of the text.
        deduplicate: whether a paragraph that stands earlier in the text is left out.
        share: of the documents that are kept from training.
    """
    marks_P = np.zeros(sum(len(outline.digests) for outline in outlines), np.uint8)
    if deduplicate:
        marks_P[_is_repeated(np.concatenate([outline.digests for outline in outlines]))] |= REPEATED
    if share is not None:
        for begin, end, digests in _documents(outlines):
            if is_held_out([digests], share):
                marks_P[begin:end] |= HELD_OUT
    return np.split(marks_P, np.cumsum([len(outline.digests) for outline in outlines])[:-1])


def _is_repeated(digests_P: NDArray[np.void]) -> NDArray[np.bool_]:
    """Tell of each paragraph whether an earlier one has the same digest."""
    halves_P2 = digests_P.view("<u8").reshape(-1, 2)
    order_P = np.lexsort((halves_P2[:, 1], halves_P2[:, 0]))  # stable: equal ones stay in the order of the text
    is_repeated_P = np.zeros(len(digests_P), np.bool_)
    is_repeated_P[order_P[1:]] = (halves_P2[order_P[1:]] == halves_P2[order_P[:-1]]).all(axis=1)
    return is_repeated_P


def _documents(outlines: Sequence[Outline]) -> Iterator[tuple[int, int, bytes]]:
    """Yield where each document begins and ends, in paragraphs, and the digests of its paragraphs."""
    digests, begin, end = bytearray(), 0, 0
    for outline in outlines:
        at = 0
        for segment, count in enumerate(outline.paragraphs.tolist()):
            if segment:  # a border
                if end > begin:
                    yield begin, end, bytes(digests)
                digests, begin = bytearray(), end
            digests += outline.digests[at : at + count].tobytes()
            at, end = at + count, end + count
    if end > begin:
        yield begin, end, bytes(digests)
