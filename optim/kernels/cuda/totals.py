"""The kernels between two that stream: sums of what chunks have, norms, ratios, steps.

`places` says what they are told, T and B are as there. Sums are in float64 and in an order that sizes alone decide.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# Triton reads an annotation as the type of an argument, and only constants and scalars need one.

import triton
import triton.language as tl

from .places import COLUMNS, LAYER_ADAPTATION, RATIO_HIGH, RATIO_LOW, WEIGHT_HIGH, WEIGHT_LOW, step_pointer

TILE = tl.constexpr(512)
"""Numbers that a program adds up at a time."""


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
    """g = sqrt(Σ squares), c = 1 / max(1, g / max_grad_norm), and whether g is not finite. One program."""
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
    finish_tensor(tl.program_id(0), layout, addresses, settings, clip, lr, partials, out, T, B, CHUNK)


@triton.jit
def finish_tensor(t, layout, addresses, settings, clip, lr, partials, out, T, B, CHUNK: tl.constexpr):
    """Add up what the chunks of a tensor have, write its norms, ratio and scale, and advance its step."""
    w_square = _total(partials, layout, t, T, CHUNK)
    u_square = _total(partials + B, layout, t, T, CHUNK)
    _ratio(w_square, u_square, settings, clip, lr, out, t, T)
    _advance(addresses, t, T, clip)


@triton.jit(do_not_specialize=["sums", "settings", "clip", "lr", "out", "T"])
def ratios(
    sums,  # float64 [2, T], Σw² and Σu² of full tensors
    settings,
    clip,
    lr,  # float64 [T]
    out,  # float64 [4, T], out: ‖w‖, ‖u‖, ratio, scale
    T,
):
    """Ratio = clamp(φ(‖w‖)/‖u‖), scale = ratio·lr. One program a tensor."""
    t = tl.program_id(0)
    _ratio(tl.load(sums + t), tl.load(sums + T + t), settings, clip, lr, out, t, T)


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
    step_ptr = step_pointer(addresses, t, T)
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
