"""Which checkpoints were whole when an attempt began, so that one that an older attempt finishes later does not count.

An attempt may be stopped for any time and come back, after newer ones have begun. Clocks and locks do not tell then
whether its checkpoint was there when the newer attempt looked. So each attempt writes down, in an object of its own and
only once, what it found. A checkpoint counts if every attempt with a higher number has found it.
"""

import re
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, ValidationError

from workers.contract.fields import Count

from .store import Store

_FOLDER = "attempts"
_NAME = re.compile(rf"{_FOLDER}/(\d+)\.json")


class Beginning(BaseModel):
    """What an attempt found when it began."""

    model_config = ConfigDict(frozen=True)

    attempt: Count
    checkpoints: frozenset[str]
    """Prefixes of the whole checkpoints."""


class Beginnings:
    """What the attempts of a run found when they began. Those of older versions did not write it down."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, attempt: int, checkpoints: Iterable[str]) -> None:
        """Write down what an attempt found; where it was started twice, the first time counts."""
        name = _name(attempt)
        if not self._store.has(name):
            found = {"attempt": attempt, "checkpoints": sorted(checkpoints)}
            self._store.put(name, Beginning.model_validate(found).model_dump_json(indent=1).encode() + b"\n")

    def all(self) -> list[Beginning]:
        """Return what is written down.

        Raises:
            ValueError: a file cannot be read; says which, and what to do.
        """
        return [self._read(name) for name in self._store.list(_FOLDER)]

    def newest(self) -> int:
        """Return the number of the newest attempt that is written down, 0 where none is."""
        matches = filter(None, map(_NAME.fullmatch, self._store.list(_FOLDER)))
        return max((int(match[1]) for match in matches), default=0)

    def _read(self, name: str) -> Beginning:
        try:
            return Beginning.model_validate_json(self._store.read(name))
        except ValidationError as error:
            remedy = "restore it from a backup; or remove it if no older attempt is running any more"
            reason = error.errors()[0]["msg"]
            raise ValueError(f"{self._store.place(name)} cannot be read: {reason}; {remedy}") from None


def _name(attempt: int) -> str:
    return f"{_FOLDER}/{attempt:08d}.json"
