"""How much room a batch needs for what differs from batch to batch, so that all batches of a phase have one shape."""

import math

import numpy as np
from numpy.typing import NDArray

from .batch import Room
from .dataset import PreTrainingData

ROWS = 1024
"""Enough to know the spread of what a row holds."""
DEVIATIONS = 6
"""One batch of a billion needs more than this many standard deviations beyond the mean; it gets twice the room."""
_MULTIPLE = 8


def room_of(data: PreTrainingData, rows: int) -> Room:
    """Return the room that a batch of so many rows needs, nearly always.

    What its rows could hold at most is no measure: of packed rows and of whole words it is several times what they do
    hold. The room is judged by the first rows of a job, so that it is the same on every rank and in every attempt.
    """
    batch = data.batch(range(ROWS))
    masked_B = _by_row(batch.masked_positions.numpy(), data.seq_len)
    if batch.packed is None:
        return Room(_room(masked_B, rows), rows, 0)
    starts_B = _by_row(batch.packed.starts.numpy(), data.seq_len)
    boundaries_B = _by_row(batch.packed.boundaries[:-1].numpy(), data.seq_len)
    return Room(_room(masked_B, rows), _room(starts_B, rows), _room(boundaries_B, rows) + 1)


def _by_row(places: NDArray[np.int64], seq_len: int) -> NDArray[np.int64]:
    return np.bincount(places // seq_len, minlength=ROWS)


def _room(counts_B: NDArray[np.int64], rows: int) -> int:
    """Return what `rows` rows need, a multiple of 8, which matrix products on GPUs like."""
    needed = float(counts_B.mean()) * rows + DEVIATIONS * float(counts_B.std()) * math.sqrt(rows)
    return math.ceil(min(needed, int(counts_B.max()) * rows) / _MULTIPLE) * _MULTIPLE
