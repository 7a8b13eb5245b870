"""The state of one parameter: new, packed into the format in which Lamb stores it, and unpacked to be saved.

Shapes: N elements in this rank's part of the parameter, K blocks of 256 that they fill, the last perhaps in part;
`codes_N` is [N].
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from optim.kernels.moments import FIRST, HALF, SECOND, decode, encode
from optim.kernels.operands import laid_out_like
from optim.sharding import local_part

_AVERAGES = {"exp_avg": FIRST, "exp_avg_sq": SECOND}
_SCALES = frozenset(f"{key}_scale" for key in _AVERAGES)

OWN = frozenset({"step", "master", *_AVERAGES, *_SCALES})
"""The entries of a parameter's state that are Lamb's; any other entry belongs to somebody else."""


def new_state(parameter: Tensor, moments: str, *, master_weights: bool) -> dict[str, Tensor]:
    """Return the state before the first step; `moments` is one of `kernels.moments.MOMENTS`.

    It has `step`, a float32 scalar, and `exp_avg` and `exp_avg_sq`, shaped and placed like the parameter. A parameter
    of half precision with `master_weights` also has `master`, its weights in float32, and 8-bit moments have
    `exp_avg_scale` and `exp_avg_sq_scale`, float32 [K].
    """
    state = _without_moments(parameter, master_weights=master_weights)
    weight = state.get("master", parameter)
    for key in _AVERAGES:
        state |= _packed_moment(key, torch.zeros_like(weight, memory_format=torch.preserve_format), moments)
    return state


def _without_moments(parameter: Tensor, *, master_weights: bool) -> dict[str, Tensor]:
    state = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
    if master_weights and parameter.dtype in HALF:
        state["master"] = parameter.detach().float()
    return state


def lay_out(parameter: Tensor, state: dict[str, Any]) -> None:
    """Lay moments and master out in memory as the parameter is, whose layout somebody may have changed since.

    Kernels take them all as flat memory.
    """
    for key in ("master", *_AVERAGES):
        held = state.get(key)
        if held is not None and (laid_out := laid_out_like(parameter, held)) is not held:
            held.data = laid_out  # the tensor stays the one that others may hold


def packed_state(parameter: Tensor, saved: Mapping[str, Any], moments: str, *, master_weights: bool) -> dict[str, Any]:
    """Return a saved state in the form that `new_state` gives it; `check_state` has accepted it.

    All tensors are copied. Entries of others keep their dtype, and go to the parameter's device; one that has the
    parameter's shape is placed like the parameter.
    """
    state: dict[str, Any] = {key: _carried(saved[key], parameter) for key in saved if key not in OWN}
    if "step" not in saved:
        return state
    state |= _without_moments(parameter, master_weights=master_weights)
    state["step"] = torch.as_tensor(saved["step"]).to(parameter.device, torch.float32, copy=True).reshape(())
    weight = state.get("master", parameter)
    for key in _AVERAGES:
        state |= _packed_moment(key, _placed(saved[key], weight, weight.dtype), moments)
    if "master" in state and saved.get("master") is not None:
        state["master"] = _placed(saved["master"], weight, weight.dtype)
    return state


def unpacked_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state as it is saved: 8-bit moments as float32 tensors that are placed like the parameter.

    Ranks that shard the parameter in another way can load these, and the same sharding gets the same bits back.
    """
    return {key: state[key] for key in state if key not in _SCALES} | {
        key: _like(state[key], decode(local_part(state[key]).view(-1), state[f"{key}_scale"], which))
        for key, which in _AVERAGES.items()
        if f"{key}_scale" in state
    }


def _packed_moment(key: str, value: Tensor, moments: str) -> dict[str, Tensor]:
    """Return the entries that store a moment which has the dtype and placement of its weight."""
    if moments == "full":
        return {key: value}
    flat_N = local_part(value).reshape(-1)
    if moments == "bfloat16":
        return {key: _like(value, flat_N.to(torch.bfloat16))}
    codes_N, scales_K = encode(flat_N.float(), _AVERAGES[key])
    return {key: _like(value, codes_N), f"{key}_scale": scales_K}


def _like(tensor: Tensor, flat_N: Tensor) -> Tensor:
    """Return this rank's elements, shaped and placed like `tensor`."""
    part = flat_N.view(local_part(tensor).shape)
    if not isinstance(tensor, DTensor):
        return part
    return DTensor.from_local(
        part, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def _carried(value: Any, parameter: Tensor) -> Any:
    """Return a copy of what somebody else keeps in a parameter's state."""
    if isinstance(value, Tensor):
        if value.shape == parameter.shape and value.dim():
            return _placed(value, parameter, value.dtype)
        return value.detach().to(parameter.device, copy=True)
    if isinstance(value, dict):
        return {key: _carried(entry, parameter) for key, entry in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(_carried(entry, parameter) for entry in value)
    return value


def _placed(value: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy of `value` on the device and with the placement of `weight`."""
    value = value.detach().to(device=weight.device, dtype=dtype, copy=True)
    if isinstance(value, DTensor) and not (isinstance(weight, DTensor) and value.device_mesh == weight.device_mesh):
        value = value.full_tensor()  # no redistribution leads from one mesh to another
    if isinstance(weight, DTensor) and not isinstance(value, DTensor):
        return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)
    if isinstance(weight, DTensor) and cast(DTensor, value).placements != weight.placements:
        return cast(DTensor, value).redistribute(weight.device_mesh, weight.placements)
    return value
