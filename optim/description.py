"""What an optimizer will do, for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .groups import elements_of, is_waiting, named
from .sharding import distinct, shard_groups
from .validation import SWITCHES


def described(
    groups: Sequence[Mapping[str, Any]], optimizer: object, settings: Iterable[str], *, takes_norm: bool
) -> str:
    """Return totals, switches, and one line for each group; `settings` are those that groups have."""
    entries = list(named(groups))
    sharded = [its for _, name, p in entries if not is_waiting(p) and (its := shard_groups(name, p))]
    collectives = (2 if takes_norm else 1) * sum(map(len, distinct(sharded)))
    collectives += bool(takes_norm and getattr(optimizer, "process_group", None) is not None)
    total = sum(elements_of(each.parameter) for each in entries)
    lines = [
        f"Lamb: {len(entries)} tensors, {total:,} elements; {len(sharded)} sharded, {collectives} collectives a step",
        "  " + ", ".join(f"{name}={getattr(optimizer, name)!r}" for name in SWITCHES),
    ]
    for number, group in enumerate(groups):
        elements = sum(map(elements_of, group["params"]))
        with_moments = {"moments": getattr(optimizer, "moments", None), **group}
        own = ", ".join(f"{name}={with_moments[name]!r}" for name in settings if name in with_moments)
        lines.append(f"  group {number}: {len(group['params'])} tensors, {elements:,} elements, {own}")
    return "\n".join(lines)
