"""What Lamb accepts: every refusal names the parameter or setting, its value and the remedy."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parameter import is_lazy

from .groups import Named
from .kernels.moments import BLOCK, HALF, MOMENTS
from .kernels.operators import BACKENDS
from .sharding import local_part

SWITCHES = (
    "bias_correction",
    "grad_averaging",
    "max_grad_norm",
    "skip_nonfinite",
    "master_weights",
    "backend",
)
"""Settings that Lamb has once, for all parameter groups."""

REAL = (torch.float64, torch.float32, *HALF)
"""Dtypes of parameters and gradients."""


def check_switches(optimizer: Any) -> None:
    """Raise ValueError or TypeError for bad settings of the whole optimizer."""
    if optimizer.max_grad_norm is not None:
        check_non_negative("max_grad_norm", optimizer.max_grad_norm)
    for name in ("bias_correction", "grad_averaging", "skip_nonfinite", "master_weights"):
        if not isinstance(getattr(optimizer, name), bool):
            raise TypeError(f"{name} is {getattr(optimizer, name)!r}; it must be True or False")
    _check_choice("moments", optimizer.moments, MOMENTS)
    _check_choice("backend", optimizer.backend, tuple(BACKENDS))


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")


def check_process_group(group: object) -> None:
    """Raise TypeError unless it is None or a process group that this rank belongs to."""
    if group is None or (dist.is_available() and isinstance(group, dist.ProcessGroup)):
        return
    raise TypeError(
        f"process_group is {group!r}; it must be None or a process group that this rank belongs to, "
        "such as torch.distributed.group.WORLD after init_process_group()"
    )


def check_group(group: Mapping[str, Any], switches: object) -> None:
    """Raise ValueError or TypeError for bad settings of a parameter group; `switches` has those of the optimizer."""
    for name in ("lr", "eps", "weight_decay"):
        check_non_negative(name, group[name])
    _check_betas(group["betas"])
    for name in ("weight_norm_bounds", "trust_ratio_bounds"):
        _check_bounds(name, group[name])
    if group["layer_adaptation"] not in (True, False, "decayed"):
        raise ValueError(f"layer_adaptation is {group['layer_adaptation']!r}; it must be True, False or 'decayed'")
    _check_choice("moments", group.get("moments", "full"), MOMENTS)
    for name in SWITCHES:
        if name in group:
            _check_copy(name, group[name], getattr(switches, name), getattr(switches, "process_group", None))


def _check_copy(name: str, value: object, own: object, process_group: object) -> None:
    """Raise ValueError for a setting of the optimizer in a group, unless a wrapper copied it there on the one rank."""
    if (value or None) != (own or None):
        raise ValueError(
            f"{name}={value!r} in a parameter group, but the optimizer has {own!r}: there is one value for all groups; "
            "pass it to Lamb itself"
        )
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if ranks > 1 and process_group is None:
        raise ValueError(
            f"{name}={value!r} in a parameter group, on one of {ranks} ranks: ZeroRedundancyOptimizer copies settings "
            "there and gives each rank other parameters, so each rank would clip and skip on its own: give it "
            "functools.partial(Lamb, process_group=torch.distributed.group.WORLD), which agrees on both, or use FSDP2"
        )


def check_non_negative(name: str, value: object) -> None:
    """Raise unless `value` is a finite number of 0 or more; a learning rate in a tensor is not read."""
    if isinstance(value, Tensor) and name == "lr" and value.numel() == 1:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}; it must be a number")
    if not (float(value) >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value!r}; it must be finite and 0 or more")


def _check_betas(betas: object) -> None:
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise TypeError(f"betas is {betas!r}; it must be a pair of numbers")
    for beta in betas:
        check_non_negative("a value of betas", beta)
        if beta >= 1:
            raise ValueError(f"betas is {betas!r}; each must be in [0, 1)")


def _check_bounds(name: str, bounds: object) -> None:
    if bounds is None:
        return
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise TypeError(f"{name} is {bounds!r}; it must be None or a pair (low, high)")
    if any(isinstance(bound, bool) or not isinstance(bound, Real) for bound in bounds):
        raise TypeError(f"{name} is {bounds!r}; both must be numbers, math.inf where there is no upper one")
    low, high = bounds
    if not 0 <= low <= high or low == math.inf:
        raise ValueError(f"{name} is {bounds!r}; it must be (low, high) with 0 <= low <= high and a finite low")


def check_parameter(name: str, parameter: Tensor, moments: str, *, master_weights: bool) -> None:
    """Raise TypeError for a parameter that Lamb cannot take, or whose moments cannot be narrower than it is."""
    check_unflattened(name, parameter)
    if parameter.layout is not torch.strided:
        raise TypeError(f"parameter {name!r} is {parameter.layout}; Lamb needs dense tensors: use to_dense()")
    if shares_elements(local_part(parameter)):
        raise TypeError(f"parameter {name!r} has elements that share memory, as expand() makes them: use clone()")
    if parameter.dtype not in REAL:
        raise TypeError(
            f"parameter {name!r} is {parameter.dtype}; Lamb needs real floating-point tensors of 16 bits or more: "
            "use view_as_real() for a complex one, and leave others out of the optimizer"
        )

    if moments == "full":
        return
    if parameter.dtype is not torch.float32 and not (master_weights and parameter.dtype in HALF):
        raise TypeError(
            f"parameter {name!r} is {parameter.dtype}; moments={moments!r} needs float32 weights: "
            "use master_weights=True for half precision, or moments='full'"
        )
    check_contiguous(name, parameter, moments)


def check_unflattened(name: str, parameter: Tensor) -> None:
    """Raise ValueError for a parameter that FSDP1 has flattened: it is a piece of several tensors or of an unknown one.

    FSDP1 marks the tensor itself, perhaps after the optimizer was built.
    """
    if getattr(parameter, "_fsdp_flattened", False):
        raise ValueError(
            f"parameter {name!r} is flattened by FSDP1 (FullyShardedDataParallel), which does not say which part of it "
            "each rank holds, so Lamb cannot take its norm: use FSDP2 (torch.distributed.fsdp.fully_shard)"
        )


def check_contiguous(name: str, parameter: Tensor, moments: str) -> None:
    """Raise TypeError where moments lie by place and the parameter's elements no longer do."""
    if moments != "full" and not local_part(parameter).is_contiguous():
        raise TypeError(f"parameter {name!r} is not contiguous; moments={moments!r} needs that: use contiguous()")


def shares_elements(tensor: Tensor) -> bool:
    """Return whether two elements lie in one place, where none can be written without the other."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def check_gradient(name: str, parameter: Tensor) -> None:
    """Raise unless the gradient is dense, real and on the mesh of its parameter."""
    grad = parameter.grad
    if grad is None:
        return
    if grad.layout is not torch.strided:
        raise TypeError(f"the gradient of {name!r} is {grad.layout}; Lamb needs dense ones: build with sparse=False")
    if grad.dtype not in REAL:
        raise TypeError(
            f"the gradient of {name!r} is {grad.dtype}; Lamb needs real floating-point ones: "
            f"convert it with to({parameter.dtype}) before step()"
        )
    placed, wanted = (tensor.device_mesh if isinstance(tensor, DTensor) else None for tensor in (grad, parameter))
    if placed != wanted:
        raise ValueError(
            f"the gradient of {name!r} is on the mesh {placed} but the parameter on {wanted}; "
            "distribute the gradient over the parameter's mesh, e.g. with distribute_tensor, before step()"
        )


def check_local_gradient(name: str, parameter: Tensor, grad: Tensor) -> None:
    """Raise ValueError unless a gradient, placed like its parameter, lies on it element by element."""
    if isinstance(parameter, DTensor):
        # Only a shape is read, and to_local() takes fifty times as long.
        grad, parameter = (x._local_tensor for x in (grad, parameter))  # type: ignore[attr-defined]  # noqa: SLF001
    if grad.shape != parameter.shape:
        raise ValueError(
            f"the gradient of {name!r} has shape {tuple(grad.shape)} on this rank but the parameter "
            f"{tuple(parameter.shape)}; shard it like the parameter, e.g. with distribute_tensor, before step()"
        )


def check_one_device(entries: Sequence[Named]) -> None:
    """Raise ValueError unless all parameters lie on one device."""
    for _, name, parameter in entries:
        _, first_name, first = entries[0]
        if parameter.device != first.device:
            raise ValueError(
                f"parameter {name!r} is on {parameter.device} but {first_name!r} on {first.device}; "
                "Lamb needs all on one device: move the model before the optimizer is built"
            )


def check_moments(name: str, state: Mapping[str, Any], moments: str) -> None:
    """Raise ValueError where the setting of a group was changed after its moments were made."""
    stored = local_part(state["exp_avg"]).dtype
    if (stored is torch.uint8) != (moments == "8bit") or (moments == "bfloat16" and stored is not torch.bfloat16):
        raise ValueError(
            f"the moments of parameter {name!r} are stored in {stored}, but its group has moments={moments!r}: "
            "convert them with optimizer.load_state_dict(optimizer.state_dict())"
        )


def check_held_state(name: str, parameter: Tensor, state: Mapping[str, Any]) -> None:
    """Raise ValueError unless the state that a step finds has all entries, each shaped and placed for the parameter.

    Kernels read them by address. They no longer fit where somebody has exchanged them or has resized the parameter.
    """
    own = local_part(parameter)
    shapes = {"step": torch.Size(), "exp_avg": own.shape, "exp_avg_sq": own.shape}
    if "master" in state:
        shapes["master"] = own.shape
    for key in ("exp_avg", "exp_avg_sq"):
        if getattr(state.get(key), "dtype", None) is torch.uint8:
            shapes[f"{key}_scale"] = torch.Size([-(-own.numel() // BLOCK)])
    for key, shape in shapes.items():
        held = local_part(state[key]) if isinstance(state.get(key), Tensor) else None
        if held is None or held.shape != shape or held.device != own.device:
            found = "no tensor" if held is None else f"{list(held.shape)} on {held.device}"
            raise ValueError(
                f"{key} of parameter {name!r} is {found} in the optimizer's state; it must be {list(shape)} on "
                f"{own.device}: put it right, or delete the state with `del optimizer.state[parameter]` to begin anew"
            )


def check_state(name: str, parameter: Tensor, saved: Mapping[str, Any]) -> None:
    """Raise ValueError unless a saved state has all that Lamb needs, in the parameter's shape, or nothing of it."""
    kinds = {"step": Tensor | Real, "exp_avg": Tensor, "exp_avg_sq": Tensor}
    if not any(key in saved for key in kinds):
        return
    if is_lazy(parameter):
        raise ValueError(
            f"parameter {name!r} is lazy and has no shape yet, but the state has moments for it: "
            "run the model once before load_state_dict()"
        )
    missing = [key for key, kind in kinds.items() if not isinstance(saved.get(key), kind)]
    if missing:
        raise ValueError(f"the state of parameter {name!r} has no {missing[0]!r}; Lamb needs {', '.join(kinds)}")
    if isinstance(saved["step"], Tensor) and saved["step"].numel() != 1:
        raise ValueError(
            f"step of parameter {name!r} has {saved['step'].numel()} elements in the state; it must be one"
        )
    for key in ("exp_avg", "exp_avg_sq", "master"):
        value = saved.get(key)
        if value is not None and value.shape != parameter.shape:
            raise ValueError(
                f"{key} of parameter {name!r} has shape {tuple(value.shape)} in the state, but the parameter has "
                f"{tuple(parameter.shape)}"
            )
