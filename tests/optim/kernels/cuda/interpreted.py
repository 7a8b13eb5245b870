"""Tests of kernels on the GPU of this machine, or where it has none, in a process in which Triton interprets them.

Triton decides that when it is imported, so it cannot be switched within the process that compiles kernels too.
"""

import functools
import importlib
import multiprocessing
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where such a test puts its tensors."""


def on_device(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test on the GPU, or with its parameters in the interpreting process, in which it is found by its name.

    Its failure comes back with the traceback that it had there.
    """
    if DEVICE.type == "cuda":
        return test

    @functools.wraps(test)
    def outside(**parameters: Any) -> None:
        _process().submit(_inside, test.__module__, test.__name__, parameters).result()

    return outside


@functools.cache
def _process() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_interpret)


def _interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy, which computes here what a GPU does silently
    import numpy as np
    from triton.runtime import interpreter

    interpreter._convert_float = _convert_bfloat16
    # Up to Triton 3.7 the interpreter's minimum of a number and a NaN is NaN, where a GPU's is the number.
    interpreter.InterpreterBuilder.create_minnumf = _without_nan(np.fmin)
    interpreter.InterpreterBuilder.create_maxnumf = _without_nan(np.fmax)


def _inside(module: str, name: str, parameters: dict[str, Any]) -> None:
    getattr(importlib.import_module(module), name).__wrapped__(**parameters)


def _without_nan(choose: Callable[..., Any]) -> Callable[..., Any]:
    def builder_method(builder: Any, left: Any, right: Any) -> Any:
        return builder.binary_op(left, right, choose)

    return builder_method


def _convert_bfloat16(numbers: Any, source: Any, target: Any, _rounding: object) -> Any:
    """Round float32 to bfloat16 as GPUs do, where the interpreter cuts the last bits off; return bits."""
    if target.name == "bf16":
        return torch.from_numpy(numbers.copy()).bfloat16().view(torch.int16).numpy()
    if source.name != "bf16" or target.name != "fp32":
        raise NotImplementedError(f"no kernel converts {source} to {target}; add it here")
    return torch.from_numpy(numbers.view("int16").copy()).view(torch.bfloat16).float().numpy()
