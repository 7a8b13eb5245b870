"""The operators on the CPU, by the compiled kernel.

Shapes: T tensors in the call; `sums_2T` is [2, T].
"""

import ctypes
import functools
import warnings
from array import array

import torch
from torch import Tensor

from optim.kernels import eager
from optim.kernels.operands import Backend, Operand, Operands, is_dense

from . import build

# They compute a few numbers for each tensor.
lamb_clip = eager.lamb_clip
lamb_ratio = eager.lamb_ratio

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""Of weights that the kernel reads."""
FORMATS = (*DTYPES, torch.uint8)
"""The order of Format in csrc/plan.h."""

_MIXED_GRADS = (torch.float32, torch.bfloat16, torch.float16)
_MIXED_MOMENTS = (torch.float32, torch.bfloat16, torch.uint8)
_FUNCTIONS = ("bigbatch_sum_squares", "bigbatch_update", "bigbatch_apply", "bigbatch_step")


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


def reads(tensor: Tensor) -> bool:
    """Return whether the kernel can add up a tensor's squares."""
    return _loaded()[0] is not None and tensor.dtype in DTYPES and is_dense(tensor)


def takes(operand: Operand) -> bool:
    """Return whether the kernel can step a tensor."""
    if _loaded()[0] is None or not operand.lies_flat or operand.step.dtype is not torch.float32:
        return False
    weight, grad, moment = operand.weight.dtype, operand.grad.dtype, operand.exp_avg.dtype
    if operand.exp_avg_sq.dtype is not moment:
        return False
    if operand.copy is not None and (operand.copy.dtype is not grad or grad is weight):
        return False  # where they are alike, the model was widened under its master weights
    mixed = weight is torch.float32 and grad in _MIXED_GRADS and moment in _MIXED_MOMENTS
    return mixed or (weight in DTYPES and weight is grad is moment and operand.copy is None)


def sum_squares(operands: Operands) -> Tensor:
    """Return Σx² of each gradient, float64 [T]."""
    call = _Call(grads=FORMATS.index(operands.grads[0].dtype))
    return _run("bigbatch_sum_squares", call, _read_table(operands), _empty(len(operands)))


def lamb_update(operands: Operands, clip_3: Tensor) -> Tensor:
    """Advance steps and moments in place and return Σw² and Σu², float64 [2, T]."""
    sums_2T = _run("bigbatch_update", _call(operands, clip_3), _step_table(operands), _empty(2, len(operands)))
    torch.autograd.graph.increment_version([*operands.masters, *operands.state])
    return sums_2T


def lamb_apply(operands: Operands, scale_T: Tensor) -> None:
    """Subtract scale·u from each weight, and write its copy; where the scale is 0, not a bit changes."""
    _run("bigbatch_apply", _call(operands), _step_table(operands), scale_T.contiguous())
    torch.autograd.graph.increment_version([*operands.weights, *operands.copies])


def lamb_step(operands: Operands, clip_3: Tensor, lr_T: Tensor) -> Tensor:
    """Take the whole step of tensors that no other rank has a part of; return what `lamb_ratio` does."""
    call = _call(operands, clip_3)
    call.lr = lr_T.data_ptr()
    norms_4T = _run("bigbatch_step", call, _step_table(operands), _empty(4, len(operands)))
    torch.autograd.graph.increment_version([*operands.weights, *operands.copies, *operands.state])
    return norms_4T


def _call(operands: Operands, clip_3: Tensor | None = None) -> _Call:
    """Return what all tensors of a call share; copies have the format of the gradients."""
    lists = operands.weights, operands.grads, operands.exp_avgs
    weights, grads, moments = (FORMATS.index(tensors[0].dtype) for tensors in lists)
    clip = None if clip_3 is None else clip_3.data_ptr()
    return _Call(clip=clip, settings=operands.settings.data_ptr(), weights=weights, grads=grads, moments=moments)


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device="cpu")  # whatever the default device is


def _step_table(operands: Operands) -> "array[int]":
    """Return int64 [9, T]: elements, then addresses in the order of Row in csrc/plan.h."""
    others = operands.addresses
    return _read_table(operands) + operands.memory.recall("others", others, lambda: array("q", sum(others, ())))


def _read_table(operands: Operands) -> "array[int]":
    """Return int64 [2, T], the first rows of that table."""
    return array("q", operands.numels) + array("q", operands.grad_addresses)


def _run(function: str, call: _Call, table: "array[int]", numbers: Tensor) -> Tensor:
    """Call a function of the library, which reads or writes `numbers`, float64 [..., T]."""
    call.threads = torch.get_num_threads()
    address, _ = table.buffer_info()
    getattr(_loaded()[0], function)(numbers.shape[-1], address, ctypes.byref(call), numbers.data_ptr())
    return numbers
