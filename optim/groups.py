"""The parameters of an optimizer's groups, and their names."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Named(NamedTuple):
    """A parameter of an optimizer."""

    group: int
    """Number of its group."""
    name: str
    """What `named_parameters()` called it, else its number among all parameters."""
    parameter: Tensor


def named(groups: Sequence[Mapping[str, Any]]) -> Iterator[Named]:
    """Yield all parameters in the order of the groups."""
    count = 0
    for number, group in enumerate(groups):
        parameters = group["params"]
        names = group.get("param_names") or [str(count + i) for i in range(len(parameters))]
        yield from (Named(number, name, parameter) for name, parameter in zip(names, parameters, strict=True))
        count += len(parameters)


def without_repeats(params: Any) -> Any:
    """Return a group's tensors or (name, tensor) pairs, each tensor once: tied weights are named twice."""
    if isinstance(params, Tensor | set):
        return params
    entries: dict[int, Any] = {}
    for entry in params:
        entries.setdefault(id(entry[1] if isinstance(entry, tuple) else entry), entry)
    return list(entries.values())
