"""The states of many tensors, made as they are first updated."""

import io
from collections.abc import Iterable, Mapping
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
# The settings that a file holds.
_SETTINGS = (
    *("lr", "beta1", "beta2", "epsilon", "lower_bound", "upper_bound", "bias_correction", "aggregate_num"),
    *("use_fused_step", "rescale_grad", "wd", "clip_gradient", "begin_num_update", "num_update", "multi_precision"),
    *("lr_mult", "wd_mult", "idx2name", "_all_index_update_counts"),
)


class Updater:
    """Call it with indices, gradients and weights: `Updater(optimizer)(indices, grads, weights)`.

    `states[index]` is `(mean, var)`, or `(weight32, (mean, var))` where there is a master weight.
    """

    def __init__(self, optimizer: LAMB) -> None:
        self.optimizer = optimizer
        self.states: dict[Index, State] = {}

    def __call__(
        self,
        index: Index | Iterable[Index],
        grad: Tensor | Iterable[Tensor],
        weight: Tensor | Iterable[Tensor],
    ) -> None:
        """Update one tensor, or a list of them with one call of the optimizer; the gradient comes first."""
        indices, grads, weights = _listed(index), _listed(grad), _listed(weight)
        # What is no tensor, or where lengths differ, is for the optimizer to say.
        tensors = {i: w for i, w in zip(indices, weights, strict=False) if isinstance(w, Tensor)}
        made = {i: self._state(i, w) for i, w in tensors.items()}
        device_id = next((w.device.index for w in tensors.values()), None) or 0
        self.optimizer._set_current_context(device_id)  # noqa: SLF001 - MXNet's own name for it
        states: list[Any] = [made.get(i) for i in indices]
        self.optimizer.update_multi_precision(indices, weights, grads, states)
        self.states.update(made)  # not before: what was refused may have made states that fit nothing else

    def _state(self, index: Index, weight: Tensor) -> State:
        state = self.states.get(index)
        if state is None:
            return self.optimizer.create_state_multi_precision(index, weight)
        return state if _device(state) == weight.device else _to(state, weight.device)  # loaded ones lie on the host

    def get_states(self, dump_optimizer: bool = False) -> bytes:
        """Return the states for `set_states`, in a form that loads without running code.

        Args:
            dump_optimizer: add the optimizer with its counts and scheduler, but without `param_dict`. Without it a
                new optimizer counts from its `begin_num_update` again, which bias correction then shows.

        Raises:
            TypeError: the optimizer's scheduler is none of this package's.
        """
        buffer = io.BytesIO()
        held = {"states": self.states, "optimizer": _dump(self.optimizer) if dump_optimizer else None}
        torch.save(_plain(held), buffer)
        return buffer.getvalue()

    def set_states(self, states: bytes) -> None:
        """Take what `get_states` returned.

        An optimizer in it replaces `self.optimizer` by a new one, whatever the settings of this, with its `param_dict`.

        Raises:
            TypeError: `states` is no bytes.
            ValueError: they are something else; a pickle is not run to find out.
        """
        if not isinstance(states, bytes):
            raise TypeError(f"states is {type(states).__name__}; it must be the bytes that get_states() returned")
        if not states.startswith(_ZIP):
            raise _not_ours(states)
        try:
            held = torch.load(io.BytesIO(states), map_location="cpu", weights_only=True)
            dump, loaded = held["optimizer"], dict(held["states"])
            optimizer = self.optimizer if dump is None else _restore(dump, self.optimizer.param_dict)
        except (UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
            raise _not_ours(states) from error
        self.states, self.optimizer = loaded, optimizer


def _not_ours(states: bytes) -> ValueError:
    return ValueError(f"states is {len(states)} bytes that get_states() did not make; start without, or save anew")


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str | Tensor) else [given]


def _device(state: State) -> torch.device:
    return state[0].device


def _to(state: Any, device: torch.device) -> Any:
    return state.to(device) if isinstance(state, Tensor) else tuple(_to(part, device) for part in state)


def _dump(optimizer: LAMB) -> dict[str, Any]:
    values = {name: getattr(optimizer, name) for name in _SETTINGS}
    return values | {"lr_scheduler": _dump_scheduler(optimizer.lr_scheduler)}


def _plain(value: Any) -> Any:
    """Return the value with NumPy's numbers as Python's, which torch.load(weights_only=True) does not refuse."""
    match value:
        case Tensor():
            return value
        case dict():
            return {_plain(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return type(value)(map(_plain, value))
    return value.item() if hasattr(value, "item") else value


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
    optimizer._set_current_context(0)  # noqa: SLF001 - MXNet's own name for it
    if dump["lr_scheduler"] is not None:
        made = _SCHEDULERS[dump["lr_scheduler"]["class"]]
        optimizer.lr_scheduler = made.__new__(made)
        vars(optimizer.lr_scheduler).update(dump["lr_scheduler"]["values"])
    return optimizer
