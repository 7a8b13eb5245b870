"""What Lamb keeps for each parameter, and the form in which it is saved and loaded."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from .kernels.moments import FIRST, SECOND, decode, encode
from .sharding import local_part

MOMENTS = ("full", "bfloat16", "8bit")
"""What `Lamb(moments=...)` may be."""

HALF = (torch.bfloat16, torch.float16)
_KEYS = {"exp_avg": FIRST, "exp_avg_sq": SECOND}
_SHARED = ("bias_correction", "grad_averaging", "max_grad_norm")
"""Switches that others keep in their groups and Lamb for all of them."""
_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")


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
    state["step"] = torch.as_tensor(saved["step"]).to(parameter.device, torch.float32, copy=True)
    weight = state.get("master", parameter)
    for key in _KEYS:
        state |= _pack(key, _placed(f"{key} of parameter {name!r}", saved[key], weight), moments)
    if "master" in state and saved.get("master") is not None:
        state["master"] = _placed(f"master of parameter {name!r}", saved["master"], weight)
    return state


def adopt_groups(
    own: Sequence[dict[str, Any]], saved: Sequence[dict[str, Any]], switches: object
) -> list[dict[str, Any]]:
    """Return saved parameter groups as Lamb's own: what a foreign group lacks stays, what Lamb does not know goes.

    Parameters keep the names that they have here. `switches` has the settings that are one for all groups of Lamb.

    Raises:
        ValueError: the other optimizer computed something else, by a setting that cannot be adopted.
    """
    for group in saved:
        for name in _SHARED:
            mine = getattr(switches, name)
            if name in group and (group[name] or None) != (mine or None):
                raise ValueError(
                    f"the state was made with {name}={group[name]!r} but this Lamb has {mine!r}: "
                    f"build it with {name}={group[name]!r}, or take {name!r} out of the state's groups"
                )
    return [_adopt(own[i], group) if i < len(own) else group for i, group in enumerate(saved)]


def _adopt(own: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    names = {"param_names": own["param_names"]} if "param_names" in own else {}
    if "layer_adaptation" in saved:  # one of ours, perhaps with what a scheduler has added
        return saved | names
    return own | {key: saved[key] for key in saved if key in own} | names


def states_in_order(own: Sequence[Mapping[str, Any]], saved: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Return saved states by the place of their parameter among all of ours; a group's step count is that of each.

    Within a group they are found by name where both sides have names, else by position, as PyTorch's optimizers do.

    Raises:
        ValueError: a group has other names here than in the state.
    """
    groups = enumerate(zip(own, saved["param_groups"], strict=False))  # PyTorch refuses other numbers of groups
    numbered = ((number, theirs) for i, (ours, theirs) in groups for number in _in_order(i, ours, theirs))
    return {
        place: {"step": group.get("step"), **saved["state"][number]}
        for place, (number, group) in enumerate(numbered)
        if number in saved["state"]
    }


def _in_order(number: int, own: Mapping[str, Any], saved: Mapping[str, Any]) -> list[Any]:
    """Return the keys of a saved group's states in the order of our parameters."""
    keys: list[Any] = saved["params"]
    names, theirs = own.get("param_names"), saved.get("param_names")
    if not names or not theirs or any(isinstance(key, str) for key in keys):  # strings come in our order, from DCP
        return keys
    keys_by_name = dict(zip(map(_bare, theirs), keys, strict=True))
    unknown = keys_by_name.keys() ^ set(map(_bare, names))
    if unknown:
        raise ValueError(
            f"group {number} has parameter {min(unknown)!r} only here or only in the state: build the groups as when "
            "it was saved, or take 'param_names' out of the state's groups to load by position"
        )
    return [keys_by_name[_bare(name)] for name in names]


def _bare(name: str) -> str:
    """Return a parameter's name without what DDP, torch.compile and activation checkpointing put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name.removeprefix("module.")


def _pack(key: str, value: Tensor, moments: str) -> dict[str, Tensor]:
    """Return a moment, placed like its weight, in the format in which it is kept."""
    if moments == "full":
        return {key: value}
    if moments == "bfloat16":
        return {key: value.to(torch.bfloat16)}
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
