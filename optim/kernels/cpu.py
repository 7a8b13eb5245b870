"""The operators on the CPU: the compiled kernel for tensors that it can read, plain PyTorch for the others.

T = tensors in the call. Arguments are those of the same operator in `eager`.
"""

import ctypes
import functools
import warnings
from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import build, eager

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""What the kernel reads; its with_numbers counts them in this order."""

_CONSTANTS = ("beta1", "beta2", "beta3", "eps", "weight_decay", "bias_correction")
_FUNCTIONS = ("bigbatch_sum_squares", "bigbatch_update", "bigbatch_apply", "bigbatch_step")
_Operator = Callable[..., Any]


class Backend(NamedTuple):
    """Who computes the operators on a device, "fused" or "eager", and why."""

    name: str
    reason: str


class _Settings(ctypes.Structure):
    """The mirror of Settings in csrc/lamb.cpp."""

    _fields_ = (
        *((name, ctypes.c_double) for name in ("beta1", "beta2", "beta3", "eps", "weight_decay", "clip", "lr")),
        *((name, ctypes.c_double) for name in ("weight_low", "weight_high", "ratio_low", "ratio_high")),
        *((name, ctypes.c_int32) for name in ("bias_correction", "layer_adaptation", "skip", "threads")),
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
        function.argtypes = (ctypes.c_int, ctypes.c_int64, *[ctypes.c_void_p] * 3)
    return library, Backend("fused", f"C++ kernel {path}")


def _or_eager(wide: int, entries: int) -> Callable[[_Operator], _Operator]:
    """Give an operator the tensors that the kernel can read, and its namesake in `eager` the others.

    Of the arguments, the first `entries` have an entry for each tensor, and of these the first `wide` are lists of
    tensors of the parameter's size; the steps come next.
    """

    def decorate(fused: _Operator) -> _Operator:
        plain: _Operator = getattr(eager, fused.__name__)

        @functools.wraps(fused)
        def operator(*arguments: Any) -> Any:
            lists, rest = arguments[:entries], arguments[entries:]
            fits = _fits(lists[:wide], lists[wide] if entries > wide else [])
            if all(fits):
                return fused(*arguments)
            if not any(fits):
                return plain(*arguments)
            chosen = [[i for i, fit in enumerate(fits) if fit is wanted] for wanted in (True, False)]
            parts = [
                compute(*(_pick(each, numbers) for each in lists), *rest)
                for compute, numbers in zip((fused, plain), chosen, strict=True)
            ]
            order = torch.tensor(chosen[0] + chosen[1]).argsort()
            return None if parts[0] is None else torch.cat(parts, dim=-1)[..., order]

        return operator

    return decorate


def _fits(lists: Sequence[list[Tensor]], steps: list[Tensor]) -> list[bool]:
    """Return for each tensor whether the kernel can read it and all that belongs to it."""
    dtype = lists[0][0].dtype
    if dtype not in DTYPES or _loaded()[0] is None or any(step.dtype is not torch.float32 for step in steps):
        return [False] * len(lists[0])
    columns = [[tensor.dtype is dtype and tensor.is_contiguous() for tensor in each] for each in lists]
    return [all(column) for column in zip(*columns, strict=True)]


def _pick(entries: list[Tensor] | Tensor, numbers: list[int]) -> list[Tensor] | Tensor:
    return entries[numbers] if isinstance(entries, Tensor) else [entries[i] for i in numbers]


@_or_eager(wide=1, entries=1)
def sum_squares(tensors: list[Tensor]) -> Tensor:
    """Return Σx² of each tensor, float64 [T]."""
    return _call("bigbatch_sum_squares", [tensors], _Settings(), _empty(len(tensors)))


@_or_eager(wide=4, entries=5)
def lamb_update(*arguments: Any) -> Tensor:
    """Advance steps and moments in place and return Σw² and Σu², float64 [2, T]."""
    lists, (clip, skip, *constants) = arguments[:5], arguments[5:]
    out = _call("bigbatch_update", lists, _settings(constants, clip, skip), _empty(2, len(lists[0])))
    torch.autograd.graph.increment_version([*lists[2], *lists[3]])
    return out


@_or_eager(wide=3, entries=5)
def lamb_apply(*arguments: Any) -> None:
    """Subtract scale·u from each weight; `scale` is float64 [T], and 0 leaves a tensor's bits as they are."""
    weights, exp_avgs, exp_avg_sqs, steps, scale, beta1, beta2, *constants = arguments
    lists = (weights, weights, exp_avgs, exp_avg_sqs, steps)  # no gradient is read, whatever stands in its row
    _call("bigbatch_apply", lists, _settings([beta1, beta2, 0.0, *constants]), scale.contiguous())
    torch.autograd.graph.increment_version(weights)


@_or_eager(wide=4, entries=5)
def lamb_step(*arguments: Any) -> Tensor:
    """Take the whole step of each tensor and return ‖w‖, ‖u‖ and the trust ratio, float64 [3, T]."""
    lists, (clip, skip, lr, *constants) = arguments[:5], arguments[5:]
    settings = _settings(constants[:6], clip, skip)
    settings.lr = lr.item()
    settings.layer_adaptation, (settings.weight_low, settings.weight_high) = constants[6:8]
    settings.ratio_low, settings.ratio_high = constants[8]
    out = _call("bigbatch_step", lists, settings, _empty(3, len(lists[0])))
    torch.autograd.graph.increment_version([*lists[1], *lists[2], *lists[3]])
    return out


def _settings(constants: Sequence[Any], clip: Tensor | None = None, skip: Tensor | None = None) -> _Settings:
    settings = _Settings(**dict(zip(_CONSTANTS, constants, strict=True)))
    if clip is not None and skip is not None:
        settings.clip, settings.skip = clip.item(), skip.item()
    return settings


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64)


def _call(function: str, lists: Sequence[list[Tensor]], settings: _Settings, numbers: Tensor) -> Tensor:
    """Call a function of the library, which reads or writes `numbers`, float64 [..., T]."""
    first = lists[0]
    settings.threads = torch.get_num_threads()
    table = array("q", [tensor.numel() for tensor in first])
    for each in lists:
        table.extend([tensor.data_ptr() for tensor in each])
    address, _ = table.buffer_info()
    dtype = DTYPES.index(first[0].dtype)
    getattr(_loaded()[0], function)(dtype, len(first), address, ctypes.byref(settings), numbers.data_ptr())
    return numbers
