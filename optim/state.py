"""What Lamb keeps for each parameter, and the form in which it is saved and loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from .kernels.moments import FIRST, HALF, SECOND, decode, encode
from .sharding import local_part

_KEYS = {"exp_avg": FIRST, "exp_avg_sq": SECOND}


@dataclass(frozen=True)
class Loaded:
    """A loaded state in a form that PyTorch passes on as it is, where it would give tensors the parameter's dtype."""

    state: dict[str, Tensor]


def new_state(parameter: Tensor, moments: str, *, master_weights: bool) -> dict[str, Tensor]:
    """Return the state before the first step; `moments` is one of MOMENTS.

    `master` is there for half precision with `master_weights`, and `exp_avg_scale` and `exp_avg_sq_scale`, float32
    [ceil(n / 256)] for this rank's n elements, for 8-bit moments.
    """
    state = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
    if master_weights and parameter.dtype in HALF:
        state["master"] = parameter.detach().float()
    weight = state.get("master", parameter)
    for key in _KEYS:
        state |= _pack(key, torch.zeros_like(weight, memory_format=torch.preserve_format), moments)
    return state


def portable(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return state as it is saved: 8-bit moments in float32, placed like the parameter, so that any cut can load them.

    Loaded at the same cut, they are the same bits.
    """
    if "exp_avg_scale" not in state:
        return dict(state)
    return {key: state[key] for key in state if not key.endswith("_scale")} | {
        key: _like(state[key], decode(local_part(state[key]).view(-1), state[f"{key}_scale"], which))
        for key, which in _KEYS.items()
    }


def load_state(
    name: str, parameter: Tensor, saved: Mapping[str, Any], moments: str, *, master_weights: bool
) -> dict[str, Tensor]:
    """Return the state that `portable`, apex or timm made, in the form that `new_state` gives it.

    Raises:
        ValueError: an entry is missing or has another shape.
    """
    state = new_state(parameter, moments, master_weights=master_weights)
    for key in ("step", *_KEYS):
        if saved.get(key) is None:
            raise ValueError(f"the state of parameter {name!r} has no {key!r}; Lamb needs step, exp_avg and exp_avg_sq")
    state["step"] = torch.as_tensor(saved["step"]).to(parameter.device, torch.float32, copy=True).reshape(())
    weight = state.get("master", parameter)
    for key in _KEYS:
        state |= _pack(key, _placed(f"{key} of parameter {name!r}", saved[key], weight), moments)
    if "master" in state and saved.get("master") is not None:
        state["master"] = _placed(f"master of parameter {name!r}", saved["master"], weight)
    return state


def _pack(key: str, value: Tensor, moments: str) -> dict[str, Tensor]:
    """Return a moment, placed like its weight, in the format in which it is kept."""
    if moments == "full":
        return {key: value}
    if moments == "bfloat16":
        return {key: _like(value, local_part(value).reshape(-1).to(torch.bfloat16))}
    codes, scales = encode(local_part(value).float().reshape(-1), _KEYS[key])
    return {key: _like(value, codes), f"{key}_scale": scales}


def _like(tensor: Tensor, flat: Tensor) -> Tensor:
    """Return this rank's elements, [n], shaped and placed like `tensor`."""
    part = flat.view(local_part(tensor).shape)
    if not isinstance(tensor, DTensor):
        return part
    return DTensor.from_local(
        part, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def _placed(what: str, value: Tensor, weight: Tensor) -> Tensor:
    """Return a copy of `value` with dtype, device and placement of `weight`; each rank cuts its part of a whole one."""
    if value.shape != weight.shape:
        raise ValueError(f"{what} has shape {tuple(value.shape)} in the state, but the parameter {tuple(weight.shape)}")
    value = value.detach().to(device=weight.device, dtype=weight.dtype, copy=True)
    if isinstance(value, DTensor) and not (isinstance(weight, DTensor) and value.device_mesh == weight.device_mesh):
        value = value.full_tensor()  # no redistribution leads off a mesh
    if isinstance(weight, DTensor) and not isinstance(value, DTensor):
        return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)
    if isinstance(weight, DTensor) and cast(DTensor, value).placements != weight.placements:
        return cast(DTensor, value).redistribute(weight.device_mesh, weight.placements)
    return value
