"""Stretches of time, and how much of them others cover."""

from collections.abc import Iterable
from typing import NamedTuple


class Interval(NamedTuple):
    """A stretch of time, in seconds."""

    begin: float
    end: float


def united(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the stretches that the intervals cover together, in order and apart from each other."""
    found: list[Interval] = []
    for each in sorted(intervals):
        if found and each.begin <= found[-1].end:
            found[-1] = Interval(found[-1].begin, max(found[-1].end, each.end))
        else:
            found.append(each)
    return found


def total_s(intervals: Iterable[Interval]) -> float:
    """Return the seconds that the intervals cover."""
    return sum(each.end - each.begin for each in united(intervals))


def common_s(some: Iterable[Interval], others: Iterable[Interval]) -> float:
    """Return the seconds that both cover."""
    some, others = list(some), list(others)
    return total_s(some) + total_s(others) - total_s([*some, *others])
