"""The kernels that stream over all elements of all tensors; `places` says what they are told, T and B are as there.

Numbers are read in float32 or wider and half precision is computed in float32. Squares are taken and summed in float64,
so they overflow and round no earlier than those of `eager`, and in an order that depends on shapes, dtypes and
alignment alone: replicas agree to the bit.

Bytes a parameter in float32: `squares` 4; `update` 24 (reads g, w, m, v, writes m, v); `apply` 16 (reads w, m, v,
writes w). u is stored nowhere, so a step moves 40, or 44 where the gradients' norm is asked for, and the floor of AdamW
is 28. With half-precision gradients and copies these are 2, 24 and 18; with moments of bfloat16 4, 16 and 12, and of 8
bits 4, 12 and 10. Of float64 an element of `update` needs two conversions and two multiply-adds, far fewer than a GPU
for training does in the time that 24 bytes take it.

Constants of each: TYPE and MOMENT_TYPE, as they are stored; CHUNK, the elements of a program; BLOCK, those taken at a
time; VECTOR, how many neighbours a thread takes, to whose bytes all addresses must be aligned.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# Triton reads an annotation as the type of an argument, and only constants and scalars need one.

import triton
import triton.language as tl

from . import moments
from .places import (
    BETA1,
    BETA2,
    BETA3,
    COLUMNS,
    COPIES,
    EPS,
    LOG_BETA1,
    LOG_BETA2,
    WEIGHT_DECAY,
    WEIGHTS,
    pointer,
    step_pointer,
)

THREADS = tl.constexpr(128)
"""In a program."""


@triton.jit(do_not_specialize=["layout", "tensors", "partials", "T"])
def squares(
    layout,
    tensors,  # int64 [T], addresses
    partials,  # float64 [B], out: Σx² of each chunk
    T,
    TYPE: tl.constexpr,  # of the tensors
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Add up the squares of each chunk. One program a chunk."""
    chunk = tl.program_id(0)
    t, start, count = _extent(layout, T, chunk, CHUNK)
    x_ptr = pointer(tensors, 0, t, T, start, TYPE, VECTOR)
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros([THREADS], tl.float64)
    for i in range(count // BLOCK):
        total += _squares(tl.load(x_ptr + (i * BLOCK + lanes)), BLOCK, VECTOR)
    if count % BLOCK != 0:
        offsets = count // BLOCK * BLOCK + lanes
        total += _squares(tl.load(x_ptr + offsets, mask=offsets < count, other=0.0), BLOCK, VECTOR)
    tl.store(partials + chunk, tl.sum(total, axis=0))


@triton.jit(do_not_specialize=["layout", "addresses", "grads", "settings", "maps", "clip", "partials", "T", "B"])
def update(
    layout,
    addresses,
    grads,  # int64 [T], addresses
    settings,
    maps,
    clip,
    partials,  # float64 [2, B], out: Σw² and Σu² of each chunk
    T,
    B,
    TYPE: tl.constexpr,  # of weights
    MOMENT_TYPE: tl.constexpr,
    GRAD_TYPE: tl.constexpr,
    COPY_TYPE: tl.constexpr,  # None if there are no copies
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """m = β1·m + β3·(c·g), v = β2·v + (1-β2)·(c·g)², and the squares of w and u. One program a chunk.

    The steps stay as they are, for other programs read them: whoever adds up the partial sums advances them.
    """
    read = layout, addresses, settings, maps, clip, T, B
    types: tl.constexpr = (TYPE, MOMENT_TYPE, GRAD_TYPE, COPY_TYPE)
    update_chunk(tl.program_id(0), read, grads, partials, types, CHUNK, BLOCK, VECTOR, "")


@triton.jit(do_not_specialize=["layout", "addresses", "settings", "maps", "scale", "T"])
def apply(
    layout,
    addresses,
    settings,
    maps,
    scale,  # float64 [T]
    T,
    TYPE: tl.constexpr,  # of weights
    MOMENT_TYPE: tl.constexpr,
    COPY_TYPE: tl.constexpr,  # None if there are no copies
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """w = w - scale·u, and its copy; nothing is touched where the scale is 0. One program a chunk."""
    read = layout, addresses, settings, maps, T
    types: tl.constexpr = (TYPE, MOMENT_TYPE, COPY_TYPE)
    apply_chunk(tl.program_id(0), read, scale, types, CHUNK, BLOCK, VECTOR, "")


@triton.jit
def update_chunk(
    chunk,
    read,  # what `update` is told of all tensors
    grads,
    partials,
    TYPES: tl.constexpr,  # of weights, moments, gradients and copies
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ONCE: tl.constexpr,  # what the cache does with numbers that nobody asks for again
):
    """Move the moments of a chunk, and store its Σw² and Σu²."""
    layout, addresses, settings, maps, clip, T, B = read
    t, start, count = _extent(layout, T, chunk, CHUNK)
    keep = tl.load(clip + 2) == 0
    step = tl.load(step_pointer(addresses, t, T)) + tl.where(keep, 1.0, 0.0)
    g_ptr = pointer(grads, 0, t, T, start, TYPES[2], VECTOR)
    places = _places(addresses, t, T, start, step, TYPES[0], TYPES[1], TYPES[3], VECTOR)
    averages = _averages(settings + t * COLUMNS, clip, _wide(TYPES[0]))
    terms = _terms(settings + t * COLUMNS, step, _wide(TYPES[0]))
    w_total = tl.zeros([THREADS], tl.float64)
    u_total = tl.zeros([THREADS], tl.float64)
    for i in range(count // BLOCK):
        w, u = _update_block(g_ptr, places, maps, i, count, keep, averages, terms, TYPES[3], BLOCK, False, ONCE)
        w_total += _squares(w, BLOCK, VECTOR)
        u_total += _squares(u, BLOCK, VECTOR)
    if count % BLOCK != 0:
        i = count // BLOCK
        w, u = _update_block(g_ptr, places, maps, i, count, keep, averages, terms, TYPES[3], BLOCK, True, ONCE)
        w_total += _squares(w, BLOCK, VECTOR)
        u_total += _squares(u, BLOCK, VECTOR)
    tl.store(partials + chunk, tl.sum(w_total, axis=0))
    tl.store(partials + B + chunk, tl.sum(u_total, axis=0))


@triton.jit
def apply_chunk(
    chunk,
    read,  # what `apply` is told of all tensors
    scale,
    TYPES: tl.constexpr,  # of weights, moments and copies
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ONCE: tl.constexpr,  # what the cache does with numbers that nobody asks for again
):
    """Move the weights of a chunk."""
    layout, addresses, settings, maps, T = read
    t, start, count = _extent(layout, T, chunk, CHUNK)
    factor = tl.load(scale + t)
    count = tl.where(factor == 0, 0, count)
    factor = factor.to(_wide(TYPES[0]))
    step = tl.load(step_pointer(addresses, t, T))
    places = _places(addresses, t, T, start, step, TYPES[0], TYPES[1], TYPES[2], VECTOR)
    terms = _terms(settings + t * COLUMNS, step, _wide(TYPES[0]))
    for i in range(count // BLOCK):
        _apply_block(places, maps, i, count, factor, terms, TYPES[2], BLOCK, False, ONCE)
    if count % BLOCK != 0:
        _apply_block(places, maps, count // BLOCK, count, factor, terms, TYPES[2], BLOCK, True, ONCE)


@triton.jit
def _update_block(
    g_ptr,
    places,
    maps,
    i,
    count,
    keep,
    averages,
    terms,
    COPY_TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
    MASKED: tl.constexpr,
    ONCE: tl.constexpr,
):
    """Move the moments of block i; return w and u in the width that is computed in, 0 beyond `count`.

    A copy that is not its weight's rounding was written by somebody else, and becomes the weight.
    """
    w_ptr, c_ptr, first, second = places
    clip, beta1, beta3, beta2, rest2 = averages
    wide: tl.constexpr = clip.dtype
    weight: tl.constexpr = w_ptr.dtype.element_ty
    offsets, rows = _block(first, i, count, BLOCK)
    mask = (offsets < count) if MASKED else None
    g = tl.load(g_ptr + offsets, mask=mask, eviction_policy=ONCE).to(wide) * clip
    w = tl.load(w_ptr + offsets, mask=mask, other=0.0 if MASKED else None).to(wide)
    if COPY_TYPE is not None:
        rounded = w.to(COPY_TYPE).to(wide)
        c = tl.load(c_ptr + offsets, mask=mask, other=0.0 if MASKED else None, eviction_policy=ONCE).to(wide)
        written = tl.where(keep, rounded != c, False)
        w = tl.where(written, c, w)
        tl.store(w_ptr + offsets, w.to(weight), mask=(written & mask) if MASKED else written)
    m = beta1 * moments.load(first, offsets, rows, mask, maps, 0, wide, "") + beta3 * g
    v = beta2 * moments.load(second, offsets, rows, mask, maps, 1, wide, "") + rest2 * g * g
    noise = moments.noise(first, offsets)
    v = moments.store(second, v, noise, offsets, rows, mask, keep, maps, 1, weight)
    m = moments.store(first, m, noise, offsets, rows, mask, keep, maps, 0, weight)
    u = _direction(w, m, v, terms)
    return w, tl.where(mask, u, 0.0) if MASKED else u


@triton.jit
def _apply_block(
    places,
    maps,
    i,
    count,
    factor,
    terms,
    COPY_TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
    MASKED: tl.constexpr,
    ONCE: tl.constexpr,
):
    w_ptr, c_ptr, first, second = places
    wide: tl.constexpr = factor.dtype
    offsets, rows = _block(first, i, count, BLOCK)
    mask = (offsets < count) if MASKED else None
    w = tl.load(w_ptr + offsets, mask=mask, eviction_policy=ONCE).to(wide)
    m = moments.load(first, offsets, rows, mask, maps, 0, wide, ONCE)
    v = moments.load(second, offsets, rows, mask, maps, 1, wide, ONCE)
    w -= factor * _direction(w, m, v, terms)
    tl.store(w_ptr + offsets, w.to(w_ptr.dtype.element_ty), mask=mask, eviction_policy=ONCE)
    if COPY_TYPE is not None:
        tl.store(c_ptr + offsets, w.to(COPY_TYPE), mask=mask, eviction_policy=ONCE)


@triton.jit
def _places(
    addresses,
    t,
    T,
    start,
    step,
    TYPE: tl.constexpr,
    MOMENT_TYPE: tl.constexpr,
    COPY_TYPE: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Return where a chunk has its weights, its copies (its weights again if there are none) and its two moments."""
    w_ptr = pointer(addresses, WEIGHTS, t, T, start, TYPE, VECTOR)
    c_ptr = w_ptr
    if COPY_TYPE is not None:
        c_ptr = pointer(addresses, COPIES, t, T, start, COPY_TYPE, VECTOR)
    first = moments.place(addresses, 0, t, T, start, step, MOMENT_TYPE, VECTOR)
    second = moments.place(addresses, 1, t, T, start, step, MOMENT_TYPE, VECTOR)
    return w_ptr, c_ptr, first, second


@triton.jit
def _averages(row, clip, WIDE: tl.constexpr):
    """Return the factor on gradients, and what the moments are averaged with: β1, β3, β2 and 1-β2."""
    beta2 = tl.load(row + BETA2)
    beta1, beta3 = tl.load(row + BETA1), tl.load(row + BETA3)
    return tl.load(clip + 1).to(WIDE), beta1.to(WIDE), beta3.to(WIDE), beta2.to(WIDE), (1 - beta2).to(WIDE)


@triton.jit
def _block(moment, i, count, BLOCK: tl.constexpr):
    """Return the elements of block i of a chunk, and the scales of its rows with which of them there are.

    The mask is made where it is used: Triton 3.6 compiles no function that returns a None among other values.
    """
    offsets = i * BLOCK + moments.lanes_of(BLOCK, moment[0].dtype.element_ty)
    scales = i * (BLOCK // moments.SCALED) + tl.arange(0, BLOCK // moments.SCALED)
    return offsets, (scales, scales * moments.SCALED < count)


@triton.jit
def _direction(w, m, v, terms):
    """u = (m/c1) / (sqrt(v)/c2 + eps) + weight_decay·w."""
    inverse1, inverse2, eps, weight_decay = terms
    if w.dtype == tl.float64:
        u = m * inverse1 / (tl.sqrt(v) * inverse2 + eps)
    else:
        u = tl.div_rn(m * inverse1, tl.sqrt_rn(v) * inverse2 + eps)
    return u + weight_decay * w


@triton.jit
def _terms(row, step, WIDE: tl.constexpr):
    """Return 1/c1, 1/c2, eps and the weight decay of a tensor; c1 = 1 - β1^t and c2 = sqrt(1 - β2^t)."""
    t = tl.maximum(step, 1.0).to(tl.float64)  # 0 only before a first step that is skipped
    c1 = 1.0 - tl.exp(t * tl.load(row + LOG_BETA1))
    c2 = tl.sqrt(1.0 - tl.exp(t * tl.load(row + LOG_BETA2)))
    return (1 / c1).to(WIDE), (1 / c2).to(WIDE), tl.load(row + EPS).to(WIDE), tl.load(row + WEIGHT_DECAY).to(WIDE)


@triton.jit
def _squares(x, BLOCK: tl.constexpr, VECTOR: tl.constexpr):
    """Return Σx² of what each thread holds of a block, float64 [THREADS]; no thread waits for another."""
    x = x.to(_wide(x.dtype)).to(tl.float64)
    held = tl.reshape(x * x, [BLOCK // (THREADS * VECTOR), THREADS, VECTOR])
    return tl.sum(tl.sum(held, axis=2), axis=0)


@triton.jit
def _extent(layout, T, chunk, CHUNK: tl.constexpr):
    """Return the tensor that a chunk belongs to, where it starts there, and how many elements it has."""
    t = tl.load(layout + 2 * T + chunk)
    start = (chunk - tl.load(layout + T + t)) * CHUNK
    return t, tl.multiple_of(start, CHUNK), tl.minimum(tl.load(layout + t) - start, CHUNK).to(tl.int32)


@triton.constexpr_function
def _wide(dtype):
    """Half precision is too short to compute in."""
    return tl.float64 if dtype == tl.float64 else tl.float32
