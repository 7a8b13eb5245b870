"""The operators on CUDA, by Triton kernels.

Shapes: T tensors in the call, B chunks of all tensors together, n sums of squares; `partials_2B` is [2, B].

Nothing here waits for the device, and what changes from step to step lies there, so a step can be captured in a CUDA
graph once it has run outside of one.

Launches of a call, for any number of tensors: `sum_squares` 2, `lamb_clip` 1, `lamb_update` 2, `lamb_ratio` 1,
`lamb_apply` 1, `lamb_step` 3, or 1 with AT_ONCE. A whole step of tensors that no rank shares has 6, or 3 where nobody
asks for the norm of the gradients; with AT_ONCE 4 or 1.
"""

import functools
import re
import warnings
from typing import Any

import torch
from torch import Tensor

from optim.kernels.operands import Backend, Operand, Operands, is_dense

try:
    import triton
    from triton import language as tl
except ImportError as error:
    _MISSING = (
        f"the CUDA kernels need Triton, which cannot be imported ({error}); "
        "torch for CUDA brings it, else `pip install triton`"
    )
else:
    from . import streaming, tables, totals, whole

    _MISSING = ""

CHUNK = 8192
"""Elements of one tensor that a program takes."""

AT_ONCE = False
"""Whether `lamb_step` is one launch, which reads most tensors once, instead of three. Off until a GPU has shown that it
is right there and faster."""

CHUNK_AT_ONCE = 2048
"""CHUNK of that launch: what all running programs hold must be much less than the L2 cache."""

LAG = 4
"""Programs on each multiprocessor between the passes over a tensor in that launch: enough to keep memory busy."""

OPTIONS: dict[str, Any] = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
"""Of the compiler. A fused multiply-add rounds once instead of twice; Triton warns where that is not decided."""

CODES_SINCE = (3, 7)
"""The first Triton that compiles 8-bit moments rightly: on an H100, 3.6 made Σu² of few elements up to 4 times too
large, while the same kernels compiled by 3.7, 3.8 and 3.9 were right to 1e-6. Where lanes of a warp hold the same terms
of a sum, 3.5 and 3.6 add some of them twice and leave others out."""

_TYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_STORED = {**_TYPES, torch.uint8: "uint8"}
_HALF = (torch.bfloat16, torch.float16)
_NARROW = (torch.bfloat16, torch.uint8)


def backend() -> Backend:
    """Return which backend computes the operators for CUDA tensors."""
    return Backend("eager", _MISSING) if _MISSING else Backend("fused", f"Triton {triton.__version__}")


def reads(tensor: Tensor) -> bool:
    """Return whether a kernel can add up a tensor's squares."""
    return not _MISSING and tensor.dtype in _TYPES and is_dense(tensor)


def takes(operand: Operand) -> bool:
    """Return whether the kernels can step a tensor."""
    if _MISSING or not operand.lies_flat or operand.step.dtype is not torch.float32:
        return False
    weight, moment = operand.weight.dtype, operand.exp_avg.dtype
    if weight not in _TYPES or operand.exp_avg_sq.dtype is not moment:
        return False
    if moment is not weight and not (weight is torch.float32 and moment in _NARROW):
        return False
    narrow = [operand.grad.dtype] + ([] if operand.copy is None else [operand.copy.dtype])
    if any(each is not weight and not (weight is torch.float32 and each in _HALF) for each in narrow):
        return False
    return moment is not torch.uint8 or compiles_codes(triton.__version__)


@functools.cache
def compiles_codes(version: str) -> bool:
    """Return whether this version of Triton compiles 8-bit moments rightly; warn once if not."""
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if numbers >= CODES_SINCE:
        return True
    warnings.warn(
        f"Lamb steps 8-bit moments in plain PyTorch, many times slower than with its kernels, because Triton {version} "
        f"compiles these wrongly: install Triton {'.'.join(map(str, CODES_SINCE))} or later, which torch 2.12 brings",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def sum_squares(operands: Operands) -> Tensor:
    """Return Σx² of each gradient, float64 [T]."""
    grads, count = operands.grads, len(operands)
    layout, addresses = tables.layout(operands, CHUNK), tables.gradients(operands)
    partials_B, squares_T = _empty(grads[0], layout.chunks), _empty(grads[0], count)
    common = (layout.table, addresses.table, partials_B, count)
    _launch(streaming.squares, layout.chunks, *common, **_shape(grads[0], CHUNK, aligned=addresses.aligned))
    _launch(totals.total_squares, count, layout.table, partials_B, squares_T, count, CHUNK=CHUNK)
    return squares_T


def lamb_clip(squares_n: Tensor, max_grad_norm: float, skip_nonfinite: bool) -> Tensor:
    """Return the norm of all gradients, the factor that clips it, and 1 if the step is to be skipped, float64 [3]."""
    clip_3 = _empty(squares_n, 3)
    numbers = (squares_n.numel(), float(max_grad_norm))
    _launch(totals.clip_gradients, 1, squares_n.contiguous(), clip_3, *numbers, SKIP_NONFINITE=skip_nonfinite)
    return clip_3


def lamb_update(operands: Operands, clip_3: Tensor) -> Tensor:
    """Advance steps and moments in place and return Σw² and Σu², float64 [2, T]."""
    call = _Call(operands, CHUNK)
    partials_2B = call.update(clip_3)
    sums_2T = _empty(clip_3, 2, len(operands))
    read = (call.layout, call.addresses, clip_3, partials_2B)
    _launch(totals.finish_update, len(operands), *read, sums_2T, *call.counts, CHUNK=CHUNK)
    torch.autograd.graph.increment_version([*operands.masters, *operands.state])
    return sums_2T


def lamb_ratio(operands: Operands, sums_2T: Tensor, clip_3: Tensor, lr_T: Tensor) -> Tensor:
    """Return ‖w‖, ‖u‖, trust ratio and the factor on u, float64 [4, T], from Σw² and Σu² of full tensors."""
    count = sums_2T.shape[1]
    norms_4T = _empty(sums_2T, 4, count)
    settings_T13 = tables.settings(operands, sums_2T.device)
    _launch(totals.ratios, count, sums_2T.contiguous(), settings_T13, clip_3, lr_T.contiguous(), norms_4T, count)
    return norms_4T


def lamb_apply(operands: Operands, scale_T: Tensor) -> None:
    """Subtract scale·u from each weight, and write its copy; where the scale is 0, not a bit changes."""
    _Call(operands, CHUNK).apply(scale_T.contiguous())
    torch.autograd.graph.increment_version([*operands.weights, *operands.copies])


def lamb_step(operands: Operands, clip_3: Tensor, lr_T: Tensor) -> Tensor:
    """Take the whole step of tensors that no other rank has a part of; return what `lamb_ratio` does."""
    call = _Call(operands, CHUNK_AT_ONCE if AT_ONCE else CHUNK)
    norms_4T = _empty(clip_3, 4, len(operands))
    if AT_ONCE:
        call.step_at_once(clip_3, lr_T.contiguous(), norms_4T)
    else:
        call.step(clip_3, lr_T.contiguous(), norms_4T)
    torch.autograd.graph.increment_version([*operands.weights, *operands.copies, *operands.state])
    return norms_4T


class _Call:
    """The operands as the kernels take them that stream."""

    def __init__(self, operands: Operands, chunk: int) -> None:
        self._chunk = chunk
        layout, addresses = tables.layout(operands, self._chunk), tables.addresses(operands)
        self.layout, self.addresses, self._aligned = layout.table, addresses.table, addresses.aligned
        self.settings = tables.settings(operands, operands.device)
        self.counts = len(operands), layout.chunks
        self._maps = tables.maps(operands)
        self._operands = operands

    def update(self, clip_3: Tensor) -> Tensor:
        """Move the moments; return Σw² and Σu² of each chunk, float64 [2, B]."""
        own = tables.gradients(self._operands)
        partials_2B = _empty(clip_3, 2, self.counts[1])
        read = (self.layout, self.addresses, own.table, self.settings, self._maps, clip_3)
        constants = self._update_constants(aligned=own.aligned)
        _launch(streaming.update, self.counts[1], *read, partials_2B, *self.counts, **constants)
        return partials_2B

    def apply(self, scale_T: Tensor) -> None:
        """Move the weights and their copies."""
        arguments = (self.layout, self.addresses, self.settings, self._maps, scale_T, self.counts[0])
        _launch(streaming.apply, self.counts[1], *arguments, **self._constants(aligned=True, encodes=False))

    def step(self, clip_3: Tensor, lr_T: Tensor, norms_4T: Tensor) -> None:
        """Take the step in three launches, and write what `lamb_ratio` returns."""
        partials_2B = self.update(clip_3)
        read = (self.layout, self.addresses, self.settings, clip_3, lr_T, partials_2B)
        _launch(totals.finish_step, self.counts[0], *read, norms_4T, *self.counts, CHUNK=self._chunk)
        self.apply(norms_4T[3])

    def step_at_once(self, clip_3: Tensor, lr_T: Tensor, norms_4T: Tensor) -> None:
        """Do the same in one launch."""
        own, order = tables.gradients(self._operands), tables.order(self._operands, self._chunk, _lag(clip_3.device))
        partials_2B = _empty(clip_3, 2, self.counts[1])
        read = (*order, self.addresses, own.table, self.settings, self._maps, clip_3, lr_T)
        constants = self._update_constants(aligned=own.aligned)
        _launch(
            whole.whole_step, len(order.items), self.layout, *read, partials_2B, norms_4T, *self.counts, **constants
        )

    def _update_constants(self, *, aligned: bool) -> dict[str, Any]:
        return self._constants(aligned=aligned, encodes=True) | {"GRAD_TYPE": _type(self._operands.grads[0])}

    def _constants(self, *, aligned: bool, encodes: bool) -> dict[str, Any]:
        """Return the constants of a kernel; `aligned` says whether tensors are that it reads beside those of all."""
        weight, moment, copies = self._operands.weights[0], self._operands.exp_avgs[0], self._operands.copies
        types = {"MOMENT_TYPE": _type(moment), "COPY_TYPE": _type(copies[0]) if copies else None}
        return types | _shape(weight, self._chunk, moment, aligned=aligned and self._aligned, encodes=encodes)


def _lag(device: torch.device) -> int:
    """Return how many items lie between the passes over a tensor; the interpreter, on a CPU, runs one at a time."""
    return LAG * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else LAG


def _shape(
    tensor: Tensor, chunk: int, moment: Tensor | None = None, *, aligned: bool, encodes: bool = False
) -> dict[str, Any]:
    """Return the constants of a streaming kernel.

    A thread holds 8 neighbours of half precision, two times 4 of float32 or 2 of float64; with more, 1024 threads would
    not find registers enough on a multiprocessor. It holds half of that where registers also go to the addresses of
    single numbers or to codes of 8-bit moments, and a quarter where they go to both. Where it finds codes it holds 8
    elements, then for 384 threads, so that a warp has all 256 that share a scale.
    """
    vector = tables.ALIGNMENT // tensor.element_size() if aligned else 1
    block = 1024 if aligned and tensor.dtype is not torch.float64 else 512
    if moment is not None and moment.dtype is torch.uint8:
        block = (1024 if encodes else 512) if aligned else 256
    return {"TYPE": _type(tensor), "CHUNK": chunk, "BLOCK": block, "VECTOR": vector}


def _type(tensor: Tensor) -> Any:
    return getattr(tl, _STORED[tensor.dtype])


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device=like.device)


def _launch(kernel: Any, programs: int, first: Tensor, *arguments: Any, **constants: Any) -> None:
    """Launch where the first argument lies; Triton itself would take the current device."""
    with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]
        kernel[(programs,)](first, *arguments, **constants, **OPTIONS)
