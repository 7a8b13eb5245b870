"""The narrow formats of moments; `optim.kernels.moments` says what they are and why they round as they do.

`load` reads a block and `store` returns what is left of one by rounding, so that u follows from what is stored. In 8
bits a block has a row of 256 elements for each scale, and so have all tensors beside it.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# Triton reads an annotation as the type of an argument, and only constants and scalars need one.

from itertools import pairwise
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from optim.kernels.moments import BLOCK, FIRST, SECOND, dynamic_map

from .places import EXP_AVG_SQS, EXP_AVGS, FIRST_SCALES, SECOND_SCALES, pointer

SCALED = tl.constexpr(BLOCK)
"""Elements that share a scale."""

CODES = tl.constexpr(256)

GREATEST = tl.constexpr(torch.finfo(torch.float32).max)

FRACTION = tl.constexpr(23)
"""Bits behind the point of a rank."""

ONE = tl.constexpr(1 << 23)
"""The rank of the code above that of 0."""


class _Ranks(NamedTuple):
    """How a number's magnitude becomes its rank: how many codes above 0 it lies, in steps of 1 / ONE.

    The map is straight within a decade and from one to the next, and up to the last magnitude below 1 its codes thin
    out, so the lowest of `lines`, slope and offset, holds. `top` is the line from there to 1, below which it lies. A
    search would need eight dependent reads of a table for each element.
    """

    lines: tuple[tuple[float, float], ...]
    top: tuple[float, float]
    last: float
    """Rank of the largest number below 1."""
    zero: int
    """Codes below that of 0, in the same steps."""


def _ranks(which: int) -> _Ranks:
    units = dynamic_map(which, torch.device("cpu")).double().tolist()
    zero = units.index(0.0)
    ends = [0]
    for decade in range(7):
        first = ends[-1] + 1
        ends += sorted({first, first + 2 ** (decade + (which == SECOND)) - 1})
    ends.append(ends[-1] + 1)

    def line(low: int, high: int) -> tuple[float, float]:
        slope = (high - low) * ONE.value / (units[zero + high] - units[zero + low])
        slope = torch.tensor(slope).item()  # in float32, so that the offset takes its rounding back and 1 is exact
        return slope, high * ONE.value - slope * units[zero + high]

    *lines, top = [line(*each) for each in pairwise(ends)]
    return _Ranks(tuple(lines), top, ends[-2] * ONE.value, zero * ONE.value)


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
    salt = _hash32(step.to(tl.int32).to(tl.uint32) * 2 + WHICH)
    return pointer(addresses, ROW, t, T, start, KEPT, VECTOR), scales, start.to(tl.uint32), salt


@triton.jit
def lanes_of(BLOCK: tl.constexpr, KEPT: tl.constexpr):
    """Return the elements of a block: [BLOCK], or for 8-bit moments [rows, 256]."""
    if KEPT == tl.uint8:  # noqa: SIM300 - neither side is on the left by nature
        lanes = tl.arange(0, BLOCK // SCALED)[:, None] * SCALED + tl.arange(0, SCALED)[None, :]
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
def store(moment, value, offsets, rows, mask, keep, maps, WHICH: tl.constexpr, TYPE: tl.constexpr):
    """Round a block of moments under weights of TYPE, write it if `keep`, and return it as it is stored."""
    ptr, scales, start, salt = moment
    kept: tl.constexpr = ptr.dtype.element_ty
    if kept == tl.uint8:
        if WHICH == 1:  # a square that overflowed must not become a scale, which would make a block of NaN
            value = tl.where(value > GREATEST, GREATEST, value)
        if mask is not None:
            value = tl.where(mask, value, 0.0)
        scale = _scale(value)
        stored = _encode(value, scale, _noise(start, offsets, salt), WHICH)
        if keep:
            tl.store(scales + rows[0], scale, mask=rows[1])
        result = _decode(stored, scale, maps, WHICH)
    elif kept != TYPE:
        stored = _round(value, _noise(start, offsets, salt))
        result = stored.to(value.dtype)
    else:
        stored = value.to(kept)
        result = stored.to(value.dtype)
    if keep:
        tl.store(ptr + offsets, stored, mask=mask)
    return result


@triton.jit
def _noise(start, offsets, salt):
    """Return 32 random bits for each element."""
    return _hash32((start + offsets.to(tl.uint32)) ^ salt)


@triton.jit
def _round(value, noise):
    """Return bfloat16: noise is added below the last place, and what is there is cut off. NaN stays NaN."""
    rounded = ((value.to(tl.uint32, bitcast=True) + (noise >> 16)) >> 16).to(tl.uint16)
    return tl.where(_is_nan(value), 0x7FC0, rounded).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def _scale(value):
    """Return of each row of [rows, 256] the element that is largest in magnitude, the first of them, or NaN."""
    sizes = tl.where(_is_nan(value), 0.0, tl.abs(value))
    first = tl.argmax(sizes, axis=1, tie_break_left=True)
    lanes = tl.arange(0, SCALED)[None, :]
    scale = tl.sum(tl.where(lanes == first[:, None], value, 0.0), axis=1)
    return tl.where(tl.sum(_is_nan(value).to(tl.int32), axis=1) > 0, float("nan"), scale)


@triton.jit
def _encode(value, scale, noise, WHICH: tl.constexpr):
    """Return the codes of [rows, 256] in units of their scales."""
    rank = _rank(tl.div_rn(value, tl.where(scale == 0, 1.0, scale)[:, None]), WHICH)
    up = (ONE - 1) - (noise >> 9).to(tl.int32)  # as many bits as a rank has behind the point
    return ((rank + up) >> FRACTION).to(tl.uint8)


@triton.jit
def _decode(codes, scale, maps, WHICH: tl.constexpr):
    """Return float32 [rows, 256]; `maps` has what the codes stand for, float32 [2, 256]."""
    return tl.load(maps + WHICH * CODES + codes.to(tl.int32)) * scale[:, None]


@triton.jit
def _rank(unit, WHICH: tl.constexpr):
    """Return where numbers lie among the codes, in steps of 1 / ONE."""
    ranks: tl.constexpr = _ranks_of(WHICH)
    size = tl.abs(unit)
    rank = tl.full(unit.shape, ranks.last, tl.float32)
    for i in tl.static_range(len(ranks.lines)):
        rank = tl.minimum(rank, tl.fma(size, ranks.lines[i][0], ranks.lines[i][1]))
    above = tl.maximum(rank, tl.fma(unit, ranks.top[0], ranks.top[1]))
    place = tl.where(unit < 0, -rank, above).to(tl.int32)
    if WHICH == 1:  # the update is divided by its root: what is not 0 never becomes 0
        place = tl.maximum(place, tl.where(unit > 0, ONE, 0))
    return ranks.zero + place


@triton.jit
def _is_nan(x):
    return x != x  # noqa: PLR0124 - Triton has no other way to ask


@triton.jit
def _hash32(x):
    """Mix 32 bits (Wellons, hash-prospector, "lowbias32")."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)
