"""LAMB in Triton: every kernel walks all tensors of a call at once.

T = tensors, B = chunks, so many elements of one tensor that a program takes. What kernels are told of the tensors:

* `layout`: int64 [2·T + B], number of elements and first chunk of each tensor, then the tensor of each chunk.
* `addresses`: int64 [5, T], of weights, first moments, second moments, copies in half precision (0 if there are none)
  and steps (float32 scalars). Those of gradients, which move more often, are int64 [T] of their own.
* `settings`: float64 [T, 13], the columns of `optim.ops` and log(beta1) and log(beta2); both are -inf where bias
  correction is off, so that beta^t = exp(t·log(beta)) is 0 and what the moments are divided by is 1.
* `clip`: float64 [3], norm of the gradients, the factor on them, and 1 if the step is skipped.

Numbers are read in float32 or wider and half precision is computed in float32. Sums are in float64 from the first
square on, so they overflow and round no earlier than those of `eager`, and in an order that depends on shapes, dtypes
and alignment alone: replicas agree to the bit.

Bytes a parameter in float32: `squares` 4; `update` 24 (reads g, w, m, v, writes m, v); `apply` 16 (reads w, m, v,
writes w). u is stored nowhere, so a step moves 40, or 44 where the gradients' norm is asked for, and the floor of AdamW
is 28. With half-precision gradients and copies these are 2, 22 and 18. Of float64 an element of `update` needs two
conversions and two multiply-adds, far fewer than a GPU for training does in the time that 24 bytes take it.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# Triton reads an annotation as the type of an argument, and only constants and scalars need one.

import triton
import triton.language as tl

WEIGHTS = tl.constexpr(0)
EXP_AVGS = tl.constexpr(1)
EXP_AVG_SQS = tl.constexpr(2)
COPIES = tl.constexpr(3)
STEPS = tl.constexpr(4)

BETA1 = tl.constexpr(0)
BETA2 = tl.constexpr(1)
BETA3 = tl.constexpr(2)
EPS = tl.constexpr(3)
WEIGHT_DECAY = tl.constexpr(4)
WEIGHT_LOW = tl.constexpr(5)
WEIGHT_HIGH = tl.constexpr(6)
RATIO_LOW = tl.constexpr(7)
RATIO_HIGH = tl.constexpr(8)
BIAS_CORRECTION = tl.constexpr(9)
LAYER_ADAPTATION = tl.constexpr(10)
LOG_BETA1 = tl.constexpr(11)
LOG_BETA2 = tl.constexpr(12)
COLUMNS = tl.constexpr(13)

THREADS = tl.constexpr(128)
"""In a program."""

TILE = tl.constexpr(512)
"""Numbers that a program adds up at a time where there is little to add up."""


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
    x_ptr = _pointer(tensors, 0, t, T, start, TYPE, VECTOR)
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros([THREADS], tl.float64)
    for i in range(count // BLOCK):
        total += _squares(tl.load(x_ptr + (i * BLOCK + lanes)), BLOCK, VECTOR)
    if count % BLOCK != 0:
        offsets = count // BLOCK * BLOCK + lanes
        total += _squares(tl.load(x_ptr + offsets, mask=offsets < count, other=0.0), BLOCK, VECTOR)
    tl.store(partials + chunk, tl.sum(total, axis=0))


@triton.jit(do_not_specialize=["layout", "partials", "out", "T"])
def total_squares(
    layout,
    partials,  # float64 [B], of the chunks
    out,  # float64 [T], out: of the tensors
    T,
    CHUNK: tl.constexpr,
):
    """Add up what the chunks of a tensor have. One program a tensor."""
    t = tl.program_id(0)
    tl.store(out + t, _total(partials, layout, t, T, CHUNK))


@triton.jit(do_not_specialize=["squares_ptr", "max_grad_norm", "out", "n"])
def clip_gradients(
    squares_ptr,  # float64 [n]
    out,  # float64 [3], out: `clip`
    n,
    max_grad_norm: tl.float64,
    SKIP_NONFINITE: tl.constexpr,
):
    """G = sqrt(Σ squares), c = 1 / max(1, G / max_grad_norm), and whether G is not finite. One program."""
    lanes = tl.arange(0, TILE)
    total = tl.zeros([TILE], tl.float64)
    for i in range(tl.cdiv(n, TILE)):
        total += tl.load(squares_ptr + i * TILE + lanes, mask=i * TILE + lanes < n, other=0.0)
    norm = tl.sqrt(tl.sum(total, axis=0))
    coefficient = tl.full([], 1.0, tl.float64)
    if max_grad_norm != 0:
        excess = norm / max_grad_norm
        coefficient = 1.0 / tl.where(excess < 1.0, 1.0, excess)  # a NaN stays one
    finite = tl.abs(norm) < float("inf")
    tl.store(out, norm)
    tl.store(out + 1, coefficient)
    tl.store(out + 2, tl.where(finite, 0.0, 1.0) if SKIP_NONFINITE else 0.0)


@triton.jit(do_not_specialize=["layout", "addresses", "grads", "settings", "clip", "partials", "T", "B"])
def update(
    layout,
    addresses,
    grads,  # int64 [T], addresses
    settings,
    clip,
    partials,  # float64 [2, B], out: Σw² and Σu² of each chunk
    T,
    B,
    TYPE: tl.constexpr,  # of weights and moments
    GRAD_TYPE: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """M = β1·m + β3·(c·g), v = β2·v + (1-β2)·(c·g)², and the squares of w and u. One program a chunk.

    The steps stay as they are, for other programs read them: whoever adds up the partial sums advances them.
    """
    chunk = tl.program_id(0)
    t, start, count = _extent(layout, T, chunk, CHUNK)
    g_ptr = _pointer(grads, 0, t, T, start, GRAD_TYPE, VECTOR)
    w_ptr = _pointer(addresses, WEIGHTS, t, T, start, TYPE, VECTOR)
    m_ptr = _pointer(addresses, EXP_AVGS, t, T, start, TYPE, VECTOR)
    v_ptr = _pointer(addresses, EXP_AVG_SQS, t, T, start, TYPE, VECTOR)
    keep = tl.load(clip + 2) == 0
    step = tl.load(_step(addresses, t, T)) + tl.where(keep, 1.0, 0.0)

    wide: tl.constexpr = _wide(TYPE)
    row = settings + t * COLUMNS
    beta2 = tl.load(row + BETA2)
    averages = (
        tl.load(clip + 1).to(wide),
        tl.load(row + BETA1).to(wide),
        tl.load(row + BETA3).to(wide),
        beta2.to(wide),
        (1 - beta2).to(wide),
    )
    terms = _terms(row, step, wide)
    lanes = tl.arange(0, BLOCK)
    w_total = tl.zeros([THREADS], tl.float64)
    u_total = tl.zeros([THREADS], tl.float64)
    for i in range(count // BLOCK):
        offsets = i * BLOCK + lanes
        w, u = _update_block(
            g_ptr + offsets, w_ptr + offsets, m_ptr + offsets, v_ptr + offsets, None, keep, averages, terms
        )
        w_total += _squares(w, BLOCK, VECTOR)
        u_total += _squares(u, BLOCK, VECTOR)
    if count % BLOCK != 0:
        offsets = count // BLOCK * BLOCK + lanes
        mask = offsets < count
        w, u = _update_block(
            g_ptr + offsets, w_ptr + offsets, m_ptr + offsets, v_ptr + offsets, mask, keep, averages, terms
        )
        w_total += _squares(w, BLOCK, VECTOR)
        u_total += _squares(tl.where(mask, u, 0.0), BLOCK, VECTOR)
    tl.store(partials + chunk, tl.sum(w_total, axis=0))
    tl.store(partials + B + chunk, tl.sum(u_total, axis=0))


@triton.jit(do_not_specialize=["layout", "addresses", "clip", "partials", "sums", "T", "B"])
def finish_update(
    layout,
    addresses,
    clip,
    partials,  # float64 [2, B], as `update` leaves it
    sums,  # float64 [2, T], out: Σw² and Σu² of each tensor
    T,
    B,
    CHUNK: tl.constexpr,
):
    """Add up what the chunks of a tensor have, and advance its step. One program a tensor."""
    t = tl.program_id(0)
    tl.store(sums + t, _total(partials, layout, t, T, CHUNK))
    tl.store(sums + T + t, _total(partials + B, layout, t, T, CHUNK))
    _advance(addresses, t, T, clip)


@triton.jit(do_not_specialize=["layout", "addresses", "settings", "clip", "lr", "partials", "out", "T", "B"])
def finish_step(
    layout,
    addresses,
    settings,
    clip,
    lr,  # float64 [T]
    partials,  # float64 [2, B], as `update` leaves it
    out,  # float64 [4, T], out: ‖w‖, ‖u‖, ratio, scale
    T,
    B,
    CHUNK: tl.constexpr,
):
    """Do as `finish_update` and `ratios`: what lies between the passes of a step. One program a tensor."""
    t = tl.program_id(0)
    w_square = _total(partials, layout, t, T, CHUNK)
    u_square = _total(partials + B, layout, t, T, CHUNK)
    _ratio(w_square, u_square, settings, clip, lr, out, t, T)
    _advance(addresses, t, T, clip)


@triton.jit(do_not_specialize=["sums", "settings", "clip", "lr", "out", "T"])
def ratios(
    sums,  # float64 [2, T], Σw² and Σu² of whole tensors
    settings,
    clip,
    lr,  # float64 [T]
    out,  # float64 [4, T], out: ‖w‖, ‖u‖, ratio, scale
    T,
):
    """Ratio = clamp(φ(‖w‖)/‖u‖), scale = ratio·lr. One program a tensor."""
    t = tl.program_id(0)
    _ratio(tl.load(sums + t), tl.load(sums + T + t), settings, clip, lr, out, t, T)


@triton.jit(do_not_specialize=["layout", "addresses", "settings", "scale", "T"])
def apply(
    layout,
    addresses,
    settings,
    scale,  # float64 [T]
    T,
    TYPE: tl.constexpr,  # of weights and moments
    COPY_TYPE: tl.constexpr,  # None if there are no copies
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """W = w - scale·u, and its copy; nothing is touched where the scale is 0. One program a chunk."""
    chunk = tl.program_id(0)
    t, start, count = _extent(layout, T, chunk, CHUNK)
    w_ptr = _pointer(addresses, WEIGHTS, t, T, start, TYPE, VECTOR)
    m_ptr = _pointer(addresses, EXP_AVGS, t, T, start, TYPE, VECTOR)
    v_ptr = _pointer(addresses, EXP_AVG_SQS, t, T, start, TYPE, VECTOR)
    c_ptr = w_ptr
    if COPY_TYPE is not None:
        c_ptr = _pointer(addresses, COPIES, t, T, start, COPY_TYPE, VECTOR)
    factor = tl.load(scale + t)
    count = tl.where(factor == 0, 0, count)

    wide: tl.constexpr = _wide(TYPE)
    terms = _terms(settings + t * COLUMNS, tl.load(_step(addresses, t, T)), wide)
    factor = factor.to(wide)
    lanes = tl.arange(0, BLOCK)
    for i in range(count // BLOCK):
        offsets = i * BLOCK + lanes
        _apply_block(w_ptr + offsets, m_ptr + offsets, v_ptr + offsets, c_ptr + offsets, None, factor, terms, COPY_TYPE)
    if count % BLOCK != 0:
        offsets = count // BLOCK * BLOCK + lanes
        mask = offsets < count
        _apply_block(w_ptr + offsets, m_ptr + offsets, v_ptr + offsets, c_ptr + offsets, mask, factor, terms, COPY_TYPE)


@triton.jit
def _update_block(g_ptr, w_ptr, m_ptr, v_ptr, mask, keep, averages, terms):
    """Move the moments of a block; return w and u in the width that is computed in."""
    clip, beta1, beta3, beta2, rest2 = averages
    wide: tl.constexpr = clip.dtype
    kept: tl.constexpr = m_ptr.dtype.element_ty
    g = tl.load(g_ptr, mask=mask).to(wide) * clip
    w = tl.load(w_ptr, mask=mask, other=None if mask is None else 0.0).to(wide)
    m = (beta1 * tl.load(m_ptr, mask=mask).to(wide) + beta3 * g).to(kept)
    v = (beta2 * tl.load(v_ptr, mask=mask).to(wide) + rest2 * g * g).to(kept)
    if keep:
        tl.store(m_ptr, m, mask=mask)
        tl.store(v_ptr, v, mask=mask)
    return w, _direction(w, m.to(wide), v.to(wide), terms)


@triton.jit
def _apply_block(w_ptr, m_ptr, v_ptr, c_ptr, mask, factor, terms, COPY_TYPE: tl.constexpr):
    wide: tl.constexpr = factor.dtype
    w = tl.load(w_ptr, mask=mask).to(wide)
    u = _direction(w, tl.load(m_ptr, mask=mask).to(wide), tl.load(v_ptr, mask=mask).to(wide), terms)
    w -= factor * u
    tl.store(w_ptr, w.to(w_ptr.dtype.element_ty), mask=mask)
    if COPY_TYPE is not None:
        tl.store(c_ptr, w.to(COPY_TYPE), mask=mask)


@triton.jit
def _direction(w, m, v, terms):
    """U = (m/c1) / (sqrt(v)/c2 + eps) + weight_decay·w."""
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
def _ratio(w_square, u_square, settings, clip, lr, out, t, T):
    """Write ‖w‖, ‖u‖, the trust ratio and what u is multiplied with; comparisons let a NaN stay one."""
    row = settings + t * COLUMNS
    skip = tl.load(clip + 2) != 0
    w_norm = tl.sqrt(w_square)
    u_norm = tl.where(skip, 0.0, tl.sqrt(u_square))
    phi = _clamp(w_norm, tl.load(row + WEIGHT_LOW), tl.load(row + WEIGHT_HIGH))
    plain = (phi == 0) | (u_norm == 0) | (tl.load(row + LAYER_ADAPTATION) == 0)
    ratio = _clamp(phi / tl.where(plain, 1.0, u_norm), tl.load(row + RATIO_LOW), tl.load(row + RATIO_HIGH))
    ratio = tl.where(plain, 1.0, ratio)
    tl.store(out + t, w_norm)
    tl.store(out + T + t, u_norm)
    tl.store(out + 2 * T + t, ratio)
    tl.store(out + 3 * T + t, tl.where(skip, 0.0, ratio * tl.load(lr + t)))


@triton.jit
def _clamp(x, low, high):
    x = tl.where(x < low, low, x)
    return tl.where(x > high, high, x)


@triton.jit
def _advance(addresses, t, T, clip):
    """Add 1 to the step of a tensor unless it is skipped."""
    step_ptr = _step(addresses, t, T)
    tl.store(step_ptr, tl.load(step_ptr) + tl.where(tl.load(clip + 2) == 0, 1.0, 0.0))


@triton.jit
def _total(partials, layout, t, T, CHUNK: tl.constexpr):
    """Return the sum of what the chunks of a tensor have in `partials`, float64 [B]."""
    first = tl.load(layout + T + t)
    count = tl.cdiv(tl.load(layout + t), CHUNK)
    lanes = tl.arange(0, TILE)
    total = tl.zeros([TILE], tl.float64)
    for i in range(tl.cdiv(count, TILE)):
        total += tl.load(partials + first + i * TILE + lanes, mask=i * TILE + lanes < count, other=0.0)
    return tl.sum(total, axis=0)


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


@triton.jit
def _pointer(addresses, ROW: tl.constexpr, t, T, start, TYPE: tl.constexpr, VECTOR: tl.constexpr):
    base = tl.load(addresses + ROW * T + t).to(tl.pointer_type(TYPE))
    return tl.multiple_of(base, VECTOR * TYPE.primitive_bitwidth // 8) + start


@triton.jit
def _step(addresses, t, T):
    return tl.load(addresses + STEPS * T + t).to(tl.pointer_type(tl.float32))


@triton.constexpr_function
def _wide(dtype):
    """Half precision is too short to compute in."""
    return tl.float64 if dtype == tl.float64 else tl.float32
