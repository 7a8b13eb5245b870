"""The whole step of tensors that no other rank has a part of, in one launch, so that most of them are read once.

A tensor's second pass follows closely on its first, while its weights and moments are in the L2 cache: then a step
moves 28 bytes a parameter instead of 40, as AdamW does. `places` says what the kernel is told, T and B are as there.

Programs take their work by a ticket, in the order that `tables.in_order` has made. Who waits, waits for programs that
have taken theirs before and that wait for nobody, so in whatever order the device starts programs, and however few at a
time, all come to an end. Sums are those of the launches one by one, in the same order, whoever adds them up.

`progress` is never reset: each step adds the same to every number, and by its ticket a program knows how many steps
there were. So a step is one launch, and a CUDA graph replays it as often as wanted.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# Triton reads an annotation as the type of an argument, and only constants and scalars need one.

import triton
import triton.language as tl

from .streaming import apply_chunk, update_chunk
from .totals import finish_tensor

ONCE = tl.constexpr("evict_first")
"""What L2 does with gradients, and with all numbers in the second pass: nobody asks for them again in this step."""

_POINTERS = ["layout", "items", "progress", "addresses", "grads", "settings", "maps", "clip", "lr", "partials", "out"]


@triton.jit(do_not_specialize=[*_POINTERS, "T", "B"])
def whole_step(
    layout,
    items,  # int32 [2·B], as `tables.Order` numbers them
    progress,  # int64 [1 + T], in and out
    addresses,
    grads,  # int64 [T], addresses
    settings,
    maps,
    clip,
    lr,  # float64 [T]
    partials,  # float64 [2, B], out: Σw² and Σu² of each chunk
    out,  # float64 [4, T], out: ‖w‖, ‖u‖, ratio, scale
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
    """Do as `update`, `finish_step` and `apply`. One program an item, 2·B in all."""
    ticket = tl.atomic_add(progress, 1, sem="relaxed")
    item = tl.load(items + ticket % (2 * B))
    chunk = item // 2
    t = tl.load(layout + 2 * T + chunk)
    finished = progress + 1 + t
    # A step adds 1 for each chunk and 1 for the scale; the second pass waits for all of these.
    complete = (ticket // (2 * B) + 1) * (tl.maximum(tl.cdiv(tl.load(layout + t), CHUNK), 1) + 1)
    if item % 2 == 0:
        read = layout, addresses, settings, maps, clip, T, B
        types: tl.constexpr = (TYPE, MOMENT_TYPE, GRAD_TYPE, COPY_TYPE)
        update_chunk(chunk, read, grads, partials, types, CHUNK, BLOCK, VECTOR, ONCE)
        tl.debug_barrier()  # all threads have written before the one that counts says so
        if tl.atomic_add(finished, 1, sem="acq_rel") == complete - 2:
            finish_tensor(t, layout, addresses, settings, clip, lr, partials, out, T, B, CHUNK)
            tl.debug_barrier()
            tl.atomic_add(finished, 1, sem="release")
    else:
        while tl.atomic_add(finished, 0, sem="acquire") < complete:
            pass
        second = layout, addresses, settings, maps, T
        kept: tl.constexpr = (TYPE, MOMENT_TYPE, COPY_TYPE)
        apply_chunk(chunk, second, out + 3 * T, kept, CHUNK, BLOCK, VECTOR, ONCE)
