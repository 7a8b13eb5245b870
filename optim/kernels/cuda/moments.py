"""The narrow formats of moments; `optim.kernels.moments` says what they are and why they round as they do.

`load` reads a block and `store` returns what is left of one by rounding, so that u follows from what is stored. In 8
bits a block has a row of 256 elements for each scale, and so have all tensors beside it.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# Triton reads an annotation as the type of an argument, and only constants and scalars need one.

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from optim.kernels.moments import BLOCK, FIRST, SECOND, dynamic_map
from optim.kernels.moments import FRACTION as _FRACTION

from .places import EXP_AVG_SQS, EXP_AVGS, FIRST_SCALES, SECOND_SCALES, pointer

SCALED = tl.constexpr(BLOCK)
"""Elements that share a scale."""

CODES = tl.constexpr(256)

GREATEST = tl.constexpr(torch.finfo(torch.float32).max)

LEAST = tl.constexpr(torch.finfo(torch.float32).tiny)

FRACTION = tl.constexpr(_FRACTION)
"""Bits behind the point of a rank: how many codes above 0 a number lies."""

ONE = tl.constexpr(1 << _FRACTION)

WHOLE = tl.constexpr(1 << 23)
"""From here to its double a float32 has no bits behind the point, and its lowest bits are those of an integer."""

DECADE = tl.constexpr(155)
"""2^32 / DECADE is about what the bits of a float32, read as an integer, grow by where it grows tenfold."""

DECADES_FROM = tl.constexpr(147 << 24)
"""With this, DECADE finds a boundary between decades within the gap of the codes around each power of ten."""

LOWEST, HIGHEST = tl.constexpr(32), tl.constexpr(38)
"""What they find for the first and the last of the seven decades; just below 1 they find one more."""


class _Line(NamedTuple):
    slope: float
    offset: float


class _Ranks(NamedTuple):
    """How a number's magnitude becomes its rank.

    In units of a decade's end, number i of the D that the decade has of one sign is 0.1 + 0.9·(i + 0.5)/D. So in these
    units all decades share a line, times D, and one for the gap on either side; the lowest of the three holds. `top` is
    the line from the last number below 1 to 1, below which it lies; `bottom` is the slope from 0 to the first, `least`.
    """

    within: _Line
    above: _Line
    below: _Line
    offset_within: float
    offset_gap: float
    top: _Line
    bottom: float
    least: float
    exponent: int
    zero: float


def _ranks(which: int) -> _Ranks:
    units = dynamic_map(which, torch.device("cpu")).double().tolist()
    zero = units.index(0.0)
    count = 2 if which == SECOND else 1  # of the lowest decade
    slope = torch.tensor(ONE.value / (1 - units[-2])).item()  # in float32, so that the offset takes its rounding back
    return _Ranks(
        _Line(count / 0.9, count * 0.8 / 0.9),
        _Line(count / 2.7, count * (2 - 1 / 2.7)),
        _Line(count / 0.54, count * (1 - 1 / 5.4)),
        -ONE.value * (count - 0.5),
        -ONE.value * (count - 0.5 + 1 / 3),
        _Line(slope, (255 - zero) * ONE.value - slope),
        ONE.value / units[zero + 1],
        units[zero + 1],
        (127 + FRACTION.value - LOWEST.value) << 23,
        zero * ONE.value,
    )


_RANKS = {FIRST: _ranks(FIRST), SECOND: _ranks(SECOND)}


@triton.constexpr_function
def _ranks_of(which):
    return _RANKS[which]


@triton.jit
def place(addresses, WHICH: tl.constexpr, t, T, start, step, KEPT: tl.constexpr, VECTOR: tl.constexpr):
    """Return where a chunk has one of the moments and its scales, and what its rounding follows from."""
    ROW: tl.constexpr = EXP_AVG_SQS if WHICH else EXP_AVGS
    SCALES: tl.constexpr = SECOND_SCALES if WHICH else FIRST_SCALES
    scales = pointer(addresses, SCALES, t, T, start // SCALED, tl.float32, 1)
    salt = _hash32(step.to(tl.int32).to(tl.uint32))
    return pointer(addresses, ROW, t, T, start, KEPT, VECTOR), scales, start.to(tl.uint32), salt


@triton.jit
def lanes_of(BLOCK: tl.constexpr, KEPT: tl.constexpr):
    """Return the elements of a block: [BLOCK], or for 8-bit moments [2, rows, 128], the halves of rows of 256.

    In this order Triton gives a row to one warp where each thread takes 4 neighbours, so no thread waits for another's.
    """
    if KEPT == tl.uint8:  # noqa: SIM300 - neither side is on the left by nature
        HALF: tl.constexpr = SCALED // 2
        rows = tl.arange(0, BLOCK // SCALED)[None, :, None] * SCALED
        lanes = tl.arange(0, 2)[:, None, None] * HALF + rows + tl.arange(0, HALF)[None, None, :]
    else:
        lanes = tl.arange(0, BLOCK)
    return lanes


@triton.jit
def load(moment, offsets, rows, mask, maps, WHICH: tl.constexpr, WIDE: tl.constexpr, POLICY: tl.constexpr):
    """Return a block in the width that is computed in. `rows` are those of its scales and which of them there are."""
    ptr, scales, _, _ = moment
    if ptr.dtype.element_ty == tl.uint8:
        scale = tl.load(scales + rows[0], mask=rows[1], other=0.0)
        codes = tl.load(ptr + offsets, mask=mask, other=None if mask is None else 0, eviction_policy=POLICY)
        value = _decode(codes, scale, maps, WHICH)
    else:
        value = tl.load(ptr + offsets, mask=mask, eviction_policy=POLICY).to(WIDE)
    return value


@triton.jit
def store(moment, value, noise, offsets, rows, mask, keep, maps, WHICH: tl.constexpr, TYPE: tl.constexpr):
    """Round a block of moments under weights of TYPE, write it if `keep`, and return it as it is stored."""
    ptr, scales, _, _ = moment
    kept: tl.constexpr = ptr.dtype.element_ty
    if kept == tl.uint8:
        if mask is not None:
            value = tl.where(mask, value, 0.0)
        scale = _scale(value, WHICH)
        stored = _encode(value, scale, noise, maps, WHICH)
        if keep:
            tl.store(scales + rows[0], scale, mask=rows[1])
        result = _decode(stored, scale, maps, WHICH)
    elif kept != TYPE:
        stored = _round(value, noise, WHICH)
        result = stored.to(value.dtype)
    else:
        stored = value.to(kept)
        result = stored.to(value.dtype)
    if keep:
        tl.store(ptr + offsets, stored, mask=mask)
    return result


@triton.jit
def noise(moment, offsets):
    """Return 32 random bits for each element; the first moment uses the upper half of them, the second the lower."""
    _, _, start, salt = moment
    return _hash32((start + offsets.to(tl.uint32)) ^ salt)


@triton.jit
def _bits(noise, COUNT: tl.constexpr, WHICH: tl.constexpr):
    return (noise << (32 - COUNT)) >> (32 - COUNT) if WHICH else noise >> (32 - COUNT)


@triton.jit
def _round(value, noise, WHICH: tl.constexpr):
    """Return bfloat16: noise is added below the last place, and what is there is cut off. NaN stays NaN."""
    rounded = ((value.to(tl.uint32, bitcast=True) + _bits(noise, 16, WHICH)) >> 16).to(tl.uint16)
    return tl.where(_is_nan(value), 0x7FC0, rounded).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def _scale(value, WHICH: tl.constexpr):
    """Return of each row of [2, rows, 128] the element that is largest in magnitude, the negative one of two, or NaN.

    The bits are compared as an integer with the sign last, in whose order NaN comes behind all numbers.
    """
    bits = value.to(tl.uint32, bitcast=True)
    largest = tl.max(tl.max((bits << 1) | (bits >> 31), axis=0), axis=1)
    scale = ((largest >> 1) | (largest << 31)).to(tl.float32, bitcast=True)
    size = tl.abs(scale)
    if WHICH == 1:  # a square that overflowed must not become a scale, which would make a block of NaN
        scale = tl.where(size > GREATEST, GREATEST, scale)
    return tl.where((size > 0) & (size < LEAST), LEAST, scale)  # of a smaller one the reciprocal is Inf


@triton.jit
def _encode(value, scale, noise, maps, WHICH: tl.constexpr):
    """Return the codes of [2, rows, 128] in units of their scales."""
    inverse = tl.div_rn(tl.full(scale.shape, 1.0, tl.float32), tl.where(scale == 0, 1.0, scale))
    rank = _rank(value * inverse[None, :, None], maps, WHICH)
    return ((rank + _bits(noise, FRACTION, WHICH)) >> FRACTION).to(tl.uint8)


@triton.jit
def _decode(codes, scale, maps, WHICH: tl.constexpr):
    """Return float32 [2, rows, 128]."""
    return tl.load(maps + WHICH * CODES + codes.to(tl.uint32)) * scale[None, :, None]


@triton.jit
def _rank(unit, maps, WHICH: tl.constexpr):
    """Return where numbers lie among the codes, in steps of 1 / ONE, in the lower 23 bits."""
    ranks: tl.constexpr = _ranks_of(WHICH)
    size = tl.minimum(tl.abs(unit), 1.0)  # 1 for NaN
    clamped = tl.maximum(size, ranks.least)
    bits = clamped.to(tl.uint32, bitcast=True).to(tl.uint64)
    decade = tl.minimum(((bits * DECADE + DECADES_FROM) >> 32).to(tl.uint32), HIGHEST)
    x = clamped * tl.load(maps + (2 * CODES - LOWEST) + decade)
    count = ((decade << 23) + ranks.exponent).to(tl.float32, bitcast=True)
    gap = tl.minimum(tl.fma(x, ranks.above.slope, ranks.above.offset), tl.fma(x, ranks.below.slope, ranks.below.offset))
    within = tl.fma(count, tl.fma(x, ranks.within.slope, ranks.within.offset), ranks.offset_within)
    rank = tl.minimum(within, tl.fma(count, gap, ranks.offset_gap))
    rank = tl.maximum(rank, tl.fma(size, ranks.top.slope, ranks.top.offset))
    if WHICH == 0:
        rank = tl.minimum(rank, size * ranks.bottom)
        rank = tl.maximum(tl.where(unit < 0, -rank, rank), -ranks.zero)
    else:  # the update is divided by its root: what is not 0 never becomes 0
        rank = tl.where(size > 0, rank, 0.0)
    return (rank + (WHOLE + ranks.zero)).to(tl.uint32, bitcast=True)


@triton.jit
def _is_nan(x):
    return x != x  # noqa: PLR0124 - Triton has no other way to ask


@triton.jit
def _hash32(x):
    """Mix 32 bits (Wellons, hash-prospector, "lowbias32")."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)
