"""The outcomes of the units that are done, kept on disk: an interrupted preparation goes on where it stopped."""

import hashlib
from pathlib import Path

from workers.corpus.reading.units import Unit

from .tasks import Marks, Task

_HASH_BYTES = 32


class Finished:
    """A folder with a file for each unit that is done; the hash of its content and origin stands at its beginning."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, task: Task, unit: Unit, marks: Marks | None, outcome: bytes) -> None:
        """Keep the outcome of a unit."""
        path = self._path(task, unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # half-written, its hash is wrong
            file.write(_hash(task, unit, marks, outcome))
            file.write(outcome)

    def get(self, task: Task, unit: Unit, marks: Marks | None) -> bytes | None:
        """Return the outcome that was kept; None where there is none of this task, unit and marks, or it is damaged."""
        try:
            content = self._path(task, unit).read_bytes()
        except FileNotFoundError:
            return None
        outcome = content[_HASH_BYTES:]
        return outcome if content[:_HASH_BYTES] == _hash(task, unit, marks, outcome) else None

    def _path(self, task: Task, unit: Unit) -> Path:
        origin = hashlib.sha256(f"{unit.file}".encode()).hexdigest()[:16]
        return self._folder / f"{task.key[:16]}-{origin}-{unit.begin:015d}"


def _hash(task: Task, unit: Unit, marks: Marks | None, outcome: bytes) -> bytes:
    origin = f"{task.key} {unit.file} {unit.begin} {unit.end} {unit.is_last}".encode()
    decided = b"" if marks is None else marks.tobytes()
    return hashlib.sha256(b"\n".join([origin, hashlib.sha256(decided).digest(), outcome])).digest()
