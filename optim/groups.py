"""The parameters of an optimizer's groups, and their names."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy


class Named(NamedTuple):
    """A parameter of an optimizer."""

    group: int
    """Number of its group."""
    name: str
    """What `named_parameters()` called it, else its number among all parameters."""
    parameter: Tensor


def named(groups: Sequence[Mapping[str, Any]]) -> Iterator[Named]:
    """Yield all parameters in the order of the groups.

    Raises:
        ValueError: a group has more names than parameters.
    """
    count = 0
    for number, group in enumerate(groups):
        parameters = group["params"]
        names = names_of(number, group, count)
        yield from (Named(number, name, parameter) for name, parameter in zip(names, parameters, strict=True))
        count += len(parameters)


def names_of(number: int, group: Mapping[str, Any], before: int) -> list[str]:
    """Return the names of a group's parameters; `before` is the number of all those in earlier groups.

    What was appended to the parameters of a named group is called by its number, like what has no names.
    """
    names, count = list(group.get("param_names") or []), len(group["params"])
    if len(names) > count:
        raise ValueError(
            f"group {number} has {len(names)} names for {count} parameters: nobody knows whose they are; "
            "take those of removed parameters out of its 'param_names' too"
        )
    return names + [str(before + i) for i in range(len(names), count)]


def is_waiting(parameter: Tensor) -> bool:
    """Return whether a parameter cannot be stepped now: it is frozen, or lazy and has no shape yet."""
    return is_lazy(parameter) or (not parameter.requires_grad and parameter.grad is None)


def elements_of(parameter: Tensor) -> int:
    """Return how many elements the full tensor has; 0 as long as it is lazy."""
    return 0 if is_lazy(parameter) else parameter.numel()


def device_of(groups: Sequence[Mapping[str, Any]]) -> torch.device:
    """Return where the parameters lie that can be stepped, or the first one if none can."""
    parameters: list[Tensor] = [parameter for group in groups for parameter in group["params"]]
    return next((each for each in parameters if not is_waiting(each)), parameters[0]).device


def without_repeats(params: Any) -> Any:
    """Return a group's tensors or (name, tensor) pairs, each tensor once: tied weights are named twice."""
    if isinstance(params, Tensor | set):
        return params
    entries: dict[int, Any] = {}
    for entry in params:
        entries.setdefault(id(entry[1] if isinstance(entry, tuple) else entry), entry)
    return list(entries.values())
