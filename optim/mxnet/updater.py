"""The states of many tensors, made as they are first updated."""

import io
from collections.abc import Mapping, Sequence
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from .lamb import LAMB
from .optimizer import Index, Multipliers, Scheduler, State
from .schedulers import CosineScheduler, FactorScheduler, MultiFactorScheduler, PolyScheduler

_SCHEDULERS: dict[str, Any] = {
    made.__name__: made for made in (CosineScheduler, FactorScheduler, MultiFactorScheduler, PolyScheduler)
}
_ZIP = b"PK\x03\x04"  # what torch.save begins a file with
# The settings that a file holds. Plain types: torch.load(weights_only=True) refuses a scalar of numpy.
_SETTINGS: dict[str, type] = {
    "lr": float,
    "beta1": float,
    "beta2": float,
    "epsilon": float,
    "lower_bound": float,
    "upper_bound": float,
    "bias_correction": bool,
    "aggregate_num": int,
    "use_fused_step": bool,
    "rescale_grad": float,
    "wd": float,
    "clip_gradient": float,
    "begin_num_update": int,
    "num_update": int,
    "multi_precision": bool,
    "lr_mult": dict,
    "wd_mult": dict,
    "idx2name": dict,
    "_index_update_count": dict,
}


class Updater:
    """Call it with indices, gradients and weights: `Updater(optimizer)(indices, grads, weights)`.

    `states[index]` is `(mean, var)`, or `(weight32, (mean, var))` where there is a master weight.
    """

    def __init__(self, optimizer: LAMB) -> None:
        self.optimizer = optimizer
        self.states: dict[Index, State] = {}

    def __call__(
        self,
        index: Index | Sequence[Index],
        grad: Tensor | Sequence[Tensor],
        weight: Tensor | Sequence[Tensor],
    ) -> None:
        """Update one tensor, or a list of them with one call of the optimizer; the gradient comes first."""
        indices, grads, weights = _listed(index), _listed(grad), _listed(weight)
        for i, w in zip(indices, weights, strict=False):  # the optimizer says it where their lengths differ
            if i not in self.states:
                self.states[i] = self.optimizer.create_state_multi_precision(i, w)
            elif _device(self.states[i]) != w.device:  # loaded states lie on the host
                self.states[i] = _to(self.states[i], w.device)
        states: list[Any] = [self.states.get(i) for i in indices]
        self.optimizer.update_multi_precision(indices, weights, grads, states)

    def get_states(self, dump_optimizer: bool = False) -> bytes:
        """Return the states for `set_states`, in a form that loads without running code.

        Args:
            dump_optimizer: add the optimizer with its counts and scheduler, but without `param_dict`. Without it a
                new optimizer counts from its `begin_num_update` again, which bias correction then shows.

        Raises:
            TypeError: the optimizer's scheduler is none of this package's.
        """
        buffer = io.BytesIO()
        torch.save({"states": self.states, "optimizer": _dump(self.optimizer) if dump_optimizer else None}, buffer)
        return buffer.getvalue()

    def set_states(self, states: bytes) -> None:
        """Take what `get_states` returned.

        An optimizer in it replaces `self.optimizer` by a new one, whatever the settings of this, with its `param_dict`.

        Raises:
            ValueError: `states` is something else; a pickle is not run to find out.
        """
        if not states.startswith(_ZIP):
            raise _not_ours(states)
        try:
            held = torch.load(io.BytesIO(states), map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError) as error:
            raise _not_ours(states) from error
        if not isinstance(held, dict) or held.keys() != {"states", "optimizer"}:
            raise _not_ours(states)
        self.states = held["states"]
        if held["optimizer"] is not None:
            self.optimizer = _restore(held["optimizer"], self.optimizer.param_dict)


def _not_ours(states: bytes) -> ValueError:
    return ValueError(f"states is {len(states)} bytes that get_states() did not make; start without, or save anew")


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _device(state: State) -> torch.device:
    return state[0].device


def _to(state: Any, device: torch.device) -> Any:
    return state.to(device) if isinstance(state, Tensor) else tuple(_to(part, device) for part in state)


def _dump(optimizer: LAMB) -> dict[str, Any]:
    values = {name: getattr(optimizer, name) for name in _SETTINGS}
    plain = {name: None if value is None else _SETTINGS[name](value) for name, value in values.items()}
    return plain | {"lr_scheduler": _dump_scheduler(optimizer.lr_scheduler)}


def _dump_scheduler(scheduler: Scheduler | None) -> dict[str, Any] | None:
    if scheduler is None:
        return None
    name = type(scheduler).__name__
    if _SCHEDULERS.get(name) is not type(scheduler):
        known = ", ".join(_SCHEDULERS)
        raise TypeError(
            f"lr_scheduler is {scheduler!r}, which cannot be saved: use one of {known}, or save states only"
        )
    return {"class": name, "values": vars(scheduler)}


def _restore(dump: Mapping[str, Any], param_dict: Mapping[Any, Multipliers]) -> LAMB:
    optimizer = LAMB(param_dict=param_dict)
    for name in _SETTINGS:
        setattr(optimizer, name, dump[name])
    if dump["lr_scheduler"] is not None:
        made = _SCHEDULERS[dump["lr_scheduler"]["class"]]
        optimizer.lr_scheduler = made.__new__(made)
        vars(optimizer.lr_scheduler).update(dump["lr_scheduler"]["values"])
    return optimizer
