"""The order of an epoch: a permutation of 0 … n - 1 of which any entry is computed alone, and none is stored.

A Feistel network permutes the numbers of as many bits as n - 1 has. A result of n or more goes through the network
again, until it is below n, which takes two passes on average at most, more only for a handful of rows.
"""

import numpy as np
from numpy.typing import NDArray

from .draws import Purpose, draw

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
ROUNDS = 8
FEWEST_BITS = 8
"""With fewer, the network would prefer some orders to others."""


def permute(seed: int, epoch_B: I64, place_B: I64, n: int) -> I64:
    """Return what stands at these places, each below `n`, in the orders of these epochs."""
    if n == 1:
        return np.zeros_like(place_B)
    bits = max((n - 1).bit_length(), FEWEST_BITS)
    number_B = place_B.astype(np.uint64)
    left_B = np.arange(len(number_B))
    while left_B.size:
        number_B[left_B] = _network(seed, epoch_B[left_B], number_B[left_B], bits)
        left_B = left_B[number_B[left_B] >= n]
    return number_B.astype(np.int64)


def _network(seed: int, epoch_B: I64, number_B: U64, bits: int) -> U64:
    low_bits = np.uint64(bits // 2)
    low_mask = np.uint64((1 << (bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    high_B, low_B = number_B >> low_bits, number_B & low_mask
    for number in range(0, ROUNDS, 2):
        high_B ^= _round(seed, epoch_B, number, low_B) & high_mask
        low_B ^= _round(seed, epoch_B, number + 1, high_B) & low_mask
    return high_B << low_bits | low_B


def _round(seed: int, epoch_B: I64, number: int, half_B: U64) -> U64:
    # A half has at most 32 bits: n counts rows, and far fewer than 2^64 of them.
    slot_B = (half_B << np.uint64(3) | np.uint64(number)).astype(np.int64)
    return draw(seed, Purpose.ORDER, epoch_B, slot_B)
