"""What a text gives a phase: rows an epoch, padding, and the balance of next-sentence prediction."""

from typing import NamedTuple

from .dataset import PreTrainingData

ROWS = 4096
"""Enough that chance alone does not look like an imbalance."""


class Survey(NamedTuple):
    """What a text gives at one length of rows; shares are those of the first rows of a run."""

    rows: int
    """In an epoch."""
    samples_per_row: float
    padding: float
    """Part of the positions that hold no token."""
    random: float | None
    """Part of the second segments that come from another document; None where there are none."""


def survey(data: PreTrainingData) -> Survey:
    """Draw the first rows of a run, without reading a token of them."""
    drawn = data.draw(range(ROWS))
    return Survey(
        rows=len(data),
        samples_per_row=len(drawn.row) / ROWS,
        padding=1 - float(drawn.length.sum()) / (ROWS * data.seq_len),
        random=float(drawn.pairs.is_random.mean()) if data.next_sentence else None,
    )
