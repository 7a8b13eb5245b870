"""The operators on CUDA: Triton kernels for tensors that they can read, plain PyTorch for the others.

T = tensors in the call. Arguments are those that `operators` describes. Nothing here waits for the device, and what
changes from step to step lies there, so a step can be captured in a CUDA graph once it has run outside of one.

Launches of a call, for any number of tensors: `sum_squares` 2, `lamb_clip` 1, `lamb_update` 2, `lamb_ratio` 1,
`lamb_apply` 1, `lamb_step` 3. A whole step of tensors that no rank shares has 6, or 3 where nobody asks for the norm of
the gradients.
"""

from typing import Any

import torch
from torch import Tensor

from optim.kernels.routing import LISTS, Backend, or_eager

try:
    import triton
    from triton import language as tl
except ImportError as error:
    _MISSING = (
        f"the CUDA kernels need Triton, which cannot be imported ({error}); "
        "torch for CUDA brings it, else `pip install triton`"
    )
else:
    from . import streaming, tables, totals

    _MISSING = ""

CHUNK = 8192
"""Elements of one tensor that a program takes."""

OPTIONS: dict[str, Any] = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
"""Of the compiler. A fused multiply-add rounds once instead of twice; Triton warns where that is not decided."""

_TYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_STORED = {**_TYPES, torch.uint8: "uint8"}
_HALF = (torch.bfloat16, torch.float16)
_NARROW = (torch.bfloat16, torch.uint8)


def backend() -> Backend:
    """Return who computes the operators for CUDA tensors."""
    return Backend("eager", _MISSING) if _MISSING else Backend("fused", f"Triton {triton.__version__}")


def _is_known(arguments: dict[str, Any]) -> bool:
    """Return whether there is a kernel for this combination of dtypes; the first tensors stand for all."""
    dtypes = {name: arguments[name][0].dtype for name in LISTS if arguments.get(name)}
    if _MISSING or not dtypes:
        return not _MISSING
    if "tensors" in dtypes:
        return dtypes["tensors"] in _TYPES
    weight, moment = dtypes["weights"], dtypes["exp_avgs"]
    grad, copy = dtypes.get("grads", weight), dtypes.get("copies", weight)
    if weight not in _TYPES or dtypes["steps"] is not torch.float32 or dtypes["exp_avg_sqs"] is not moment:
        return False
    if moment is not weight and not (weight is torch.float32 and moment in _NARROW):
        return False
    return all(narrow is weight or (weight is torch.float32 and narrow in _HALF) for narrow in (grad, copy))


@or_eager(_is_known)
def sum_squares(tensors: list[Tensor]) -> Tensor:
    """Return Σx² of each tensor, float64 [T]."""
    layout = tables.layout(tensors, CHUNK)
    addresses = tables.addresses(tensors)
    partials, out = _empty(layout.table, layout.chunks), _empty(layout.table, len(tensors))
    common = (layout.table, addresses.table, partials, len(tensors))
    _launch(streaming.squares, layout.chunks, *common, **_shape(tensors[0], aligned=addresses.aligned))
    _launch(totals.total_squares, len(tensors), layout.table, partials, out, len(tensors), CHUNK=CHUNK)
    return out


@or_eager(_is_known)
def lamb_clip(squares: Tensor, max_grad_norm: float, skip_nonfinite: bool) -> Tensor:
    """Return the norm of all gradients, the factor that clips it, and 1 if the step is to be skipped, float64 [3]."""
    out = _empty(squares, 3)
    numbers = (squares.numel(), float(max_grad_norm))
    _launch(totals.clip_gradients, 1, squares.contiguous(), out, *numbers, SKIP_NONFINITE=skip_nonfinite)
    return out


@or_eager(_is_known)
def lamb_update(
    grads: list[Tensor],
    weights: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    scales: list[Tensor],
    steps: list[Tensor],
    clip: Tensor,
    settings: Tensor,
) -> Tensor:
    """Advance steps and moments in place and return Σw² and Σu², float64 [2, T]."""
    call = _Call(weights, [], exp_avgs, exp_avg_sqs, scales, steps, settings)
    partials = call.update(grads, clip)
    sums = _empty(clip, 2, len(weights))
    arguments = (call.layout, call.addresses, clip, partials, sums, *call.counts)
    _launch(totals.finish_update, len(weights), *arguments, CHUNK=CHUNK)
    torch.autograd.graph.increment_version([*exp_avgs, *exp_avg_sqs, *scales])
    return sums


@or_eager(_is_known)
def lamb_ratio(sums: Tensor, clip: Tensor, lr: Tensor, settings: Tensor) -> Tensor:
    """Return ‖w‖, ‖u‖, trust ratio and scale, float64 [4, T], from Σw² and Σu² of whole tensors, [2, T]."""
    count = sums.shape[1]
    out = _empty(sums, 4, count)
    numbers = (tables.settings(settings, sums.device), clip, lr.contiguous(), out, count)
    _launch(totals.ratios, count, sums.contiguous(), *numbers)
    return out


@or_eager(_is_known)
def lamb_apply(
    weights: list[Tensor],
    copies: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    scales: list[Tensor],
    steps: list[Tensor],
    scale: Tensor,
    settings: Tensor,
) -> None:
    """Subtract scale·u from each weight; `scale` is float64 [T], and 0 leaves a tensor's bits as they are."""
    _Call(weights, copies, exp_avgs, exp_avg_sqs, scales, steps, settings).apply(scale.contiguous())
    torch.autograd.graph.increment_version([*weights, *copies])


@or_eager(_is_known)
def lamb_step(
    grads: list[Tensor],
    weights: list[Tensor],
    copies: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    scales: list[Tensor],
    steps: list[Tensor],
    clip: Tensor,
    lr: Tensor,
    settings: Tensor,
) -> Tensor:
    """Take the whole step of each tensor and return ‖w‖, ‖u‖, trust ratio and scale, float64 [4, T]."""
    call = _Call(weights, copies, exp_avgs, exp_avg_sqs, scales, steps, settings)
    partials = call.update(grads, clip)
    out = _empty(clip, 4, len(weights))
    arguments = (call.layout, call.addresses, call.settings, clip, lr.contiguous(), partials, out, *call.counts)
    _launch(totals.finish_step, len(weights), *arguments, CHUNK=CHUNK)
    call.apply(out[3])
    torch.autograd.graph.increment_version([*weights, *copies, *exp_avgs, *exp_avg_sqs, *scales])
    return out


class _Call:
    """The tensors of a call, as the two streaming kernels take them."""

    def __init__(
        self,
        weights: list[Tensor],
        copies: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_sqs: list[Tensor],
        scales: list[Tensor],
        steps: list[Tensor],
        settings: Tensor,
    ) -> None:
        layout = tables.layout(weights, CHUNK)
        split = scales[: len(weights)], scales[len(weights) :]
        addresses = tables.addresses(weights, exp_avgs, exp_avg_sqs, copies, *split, steps=steps)
        self.layout, self.addresses, self._aligned = layout.table, addresses.table, addresses.aligned
        self.settings = tables.settings(settings, weights[0].device)
        self._maps = tables.maps(weights[0].device)
        self.counts = len(weights), layout.chunks
        self._weight, self._moment = weights[0], exp_avgs[0]
        self._copy_type = _type(copies[0]) if copies else None

    def update(self, grads: list[Tensor], clip: Tensor) -> Tensor:
        """Move the moments; return Σw² and Σu² of each chunk, float64 [2, chunks]."""
        own = tables.addresses(grads)
        partials = _empty(clip, 2, self.counts[1])
        arguments = (self.layout, self.addresses, own.table, self.settings, self._maps, clip, partials, *self.counts)
        constants = self._constants(aligned=self._aligned and own.aligned)
        _launch(streaming.update, self.counts[1], *arguments, GRAD_TYPE=_type(grads[0]), **constants)
        return partials

    def apply(self, scale: Tensor) -> None:
        """Move the weights and their copies; `scale` is float64 [T]."""
        arguments = (self.layout, self.addresses, self.settings, self._maps, scale, self.counts[0])
        constants = self._constants(aligned=self._aligned)
        _launch(streaming.apply, self.counts[1], *arguments, COPY_TYPE=self._copy_type, **constants)

    def _constants(self, *, aligned: bool) -> dict[str, Any]:
        return {"MOMENT_TYPE": _type(self._moment), **_shape(self._weight, self._moment, aligned=aligned)}


def _shape(tensor: Tensor, moment: Tensor | None = None, *, aligned: bool) -> dict[str, Any]:
    """Return the constants of a streaming kernel.

    A thread holds 8 neighbours of half precision, two times 4 of float32 or 2 of float64; more would cost the registers
    that keep 1024 threads on a multiprocessor. Half of it where registers also go to the addresses of single numbers or
    to the codes of 8-bit moments, whose update keeps 512 threads there.
    """
    vector = tables.ALIGNMENT // tensor.element_size() if aligned else 1
    coded = moment is not None and moment.dtype is torch.uint8
    block = 1024 if aligned and tensor.dtype is not torch.float64 and not coded else 512
    return {"TYPE": _type(tensor), "CHUNK": CHUNK, "BLOCK": block, "VECTOR": vector}


def _type(tensor: Tensor) -> Any:
    return getattr(tl, _STORED[tensor.dtype])


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device=like.device)


def _launch(kernel: Any, programs: int, first: Tensor, *arguments: Any, **constants: Any) -> None:
    """Launch where the first argument lies; Triton itself would take the current device."""
    if programs:
        with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]
            kernel[(programs,)](first, *arguments, **constants, **OPTIONS)
