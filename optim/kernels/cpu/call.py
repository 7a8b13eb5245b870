"""The operators on the CPU: the compiled kernel for tensors that it can read, plain PyTorch for the others.

T = tensors in the call. Arguments are those of the same operator in `eager`.
"""

import ctypes
import functools
import warnings
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from optim.kernels.routing import Backend, or_eager

from . import build

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""Of weights that the kernel reads."""
FORMATS = (*DTYPES, torch.uint8)
"""The order of Format in csrc/plan.h."""

_MIXED_GRADS = (torch.float32, torch.bfloat16, torch.float16)
_MIXED_MOMENTS = (torch.float32, torch.bfloat16, torch.uint8)
_FUNCTIONS = ("bigbatch_sum_squares", "bigbatch_update", "bigbatch_apply", "bigbatch_step")
_Lists = Sequence[list[Tensor]]


class _Call(ctypes.Structure):
    """The mirror of Call in csrc/plan.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("clip", "settings", "lr")),
        *((name, ctypes.c_int32) for name in ("weights", "grads", "moments", "threads")),
    )


def backend() -> Backend:
    """Return who computes the operators for CPU tensors; compiles the kernel if that was never done here."""
    return _loaded()[1]


@functools.cache
def _loaded() -> tuple[ctypes.CDLL | None, Backend]:
    try:
        library, path = build.load()
    except build.UnavailableError as error:
        warnings.warn(
            f"Lamb runs in plain PyTorch on the CPU, several times slower than with its C++ kernel: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None, Backend("eager", str(error))
    for name in _FUNCTIONS:
        function = getattr(library, name)
        function.restype = None
        function.argtypes = (ctypes.c_int64, *[ctypes.c_void_p] * 3)
    return library, Backend("fused", f"C++ kernel {path}")


def _is_known(arguments: dict[str, Any]) -> bool:
    """Return whether the kernel knows this combination of dtypes; the first tensors stand for all."""
    if _loaded()[0] is None:
        return False
    if "weights" not in arguments:
        return arguments["tensors"][0].dtype in DTYPES
    if arguments["steps"][0].dtype is not torch.float32:
        return False
    weight, grad, moment = _formats(arguments)
    copies = arguments.get("copies") or []
    if arguments["exp_avg_sqs"][0].dtype is not moment or any(copy.dtype is not grad for copy in copies[:1]):
        return False
    if copies and grad is weight:  # a model that was widened under its master weights
        return False
    mixed = weight is torch.float32 and grad in _MIXED_GRADS and moment in _MIXED_MOMENTS
    return mixed or (weight in DTYPES and weight is grad is moment and not copies)


def _formats(arguments: dict[str, Any]) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
    """Return the dtypes of weights, gradients and moments; copies have that of the gradients."""
    weights, exp_avgs = arguments["weights"], arguments["exp_avgs"]
    grads = arguments.get("grads") or arguments.get("copies") or weights
    return weights[0].dtype, grads[0].dtype, exp_avgs[0].dtype


@or_eager(_is_known)
def sum_squares(tensors: list[Tensor]) -> Tensor:
    """Return Σx² of each tensor, float64 [T]."""
    call = _Call(grads=FORMATS.index(tensors[0].dtype))
    return _run("bigbatch_sum_squares", call, _table(grads=tensors), _empty(len(tensors)))


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
    lists = {"grads": grads, "weights": weights, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    call = _call(lists, settings, clip)
    out = _run("bigbatch_update", call, _table(**lists, scales=scales, steps=steps), _empty(2, len(grads)))
    torch.autograd.graph.increment_version([*exp_avgs, *exp_avg_sqs])
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
    lists = {"weights": weights, "copies": copies, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    table = _table(**lists, scales=scales, steps=steps)
    _run("bigbatch_apply", _call(lists, settings), table, scale.contiguous())
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
    """Take the whole step of each tensor and return what `lamb_ratio` does, float64 [4, T]."""
    lists = {"grads": grads, "weights": weights, "copies": copies, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    call = _call(lists, settings, clip)
    call.lr = lr.data_ptr()
    out = _run("bigbatch_step", call, _table(**lists, scales=scales, steps=steps), _empty(4, len(grads)))
    torch.autograd.graph.increment_version([*weights, *copies, *exp_avgs, *exp_avg_sqs])
    return out


def _call(lists: dict[str, list[Tensor]], settings: Tensor, clip: Tensor | None = None) -> _Call:
    weights, grads, moments = map(FORMATS.index, _formats(lists))
    address = None if clip is None else clip.data_ptr()
    return _Call(clip=address, settings=settings.data_ptr(), weights=weights, grads=grads, moments=moments)


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device="cpu")  # whatever the default device is


_ROWS = ("grads", "weights", "copies", "exp_avgs", "exp_avg_sqs", "first_scales", "second_scales", "steps")


def _table(*, scales: Sequence[Tensor] = (), **lists: list[Tensor]) -> "array[int]":
    """Return int64 [9, T]: elements, and the addresses of the lists that there are, 0 for the others."""
    first = next(iter(lists.values()))
    lists |= {"first_scales": list(scales[: len(first)]), "second_scales": list(scales[len(first) :])}
    table = array("q", [tensor.numel() for tensor in first])
    for name in _ROWS:
        table.extend([tensor.data_ptr() for tensor in lists.get(name, ())] or [0] * len(first))
    return table


def _run(function: str, call: _Call, table: "array[int]", numbers: Tensor) -> Tensor:
    """Call a function of the library, which reads or writes `numbers`, float64 [..., T]."""
    call.threads = torch.get_num_threads()
    address, _ = table.buffer_info()
    getattr(_loaded()[0], function)(numbers.shape[-1], address, ctypes.byref(call), numbers.data_ptr())
    return numbers
