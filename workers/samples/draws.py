"""Random numbers without a state: each is a function of (seed, purpose, index, slot), whatever was drawn before.

A generator per sample would cost more than the rest of the sample; SplitMix64's mixer over whole arrays does not, and
unlike the streams of `numpy.random` it will not change with a release of numpy.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Purpose(IntEnum):
    """What a number decides; numbers of different purposes are independent."""

    ORDER = 1
    BORDER = 2
    NEXT = 3
    OTHER = 4
    OTHER_BORDER = 5
    MASK = 6
    REPLACE = 7
    DROPOUT = 8
    SHORT = 9
    LENGTH = 10
    LAST_WORD = 11


def draw(seed: int, purpose: Purpose, index: NDArray[np.int64], slot: NDArray[np.int64] | int = 0) -> U64:
    """Draw a uniform 64-bit number for each pair of index and slot, broadcast against each other."""
    key = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(purpose))
    return _mix(_mix(key ^ index.astype(np.uint64)) + np.asarray(slot).astype(np.uint64))


def below(bits: U64, bound: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Map 64 random bits to 0 … bound - 1; the bias, bound / 2^64, is too small to be seen."""
    return (bits % np.asarray(bound).astype(np.uint64)).astype(np.int64)


def happens(bits: U64, probability: float) -> NDArray[np.bool_]:
    """Decide whether something of this probability, below 1, happens."""
    return bits < np.uint64(int(probability * 2**64))


def _mix(x: U64) -> U64:
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
