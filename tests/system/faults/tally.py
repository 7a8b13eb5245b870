"""What a soak has seen so far: kept in a file, so that it adds up over several runs."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self


@dataclass
class Subject:
    """A job of the soak that has not ended yet."""

    number: int
    key: str
    """The Idempotency-Key of its submission."""
    id: str | None = None
    """None until the server has answered."""
    hit: dict[str, list[str]] = field(default_factory=dict)
    """What was killed of each attempt, by its number."""

    def add_hit(self, attempt: int, what: str) -> None:
        self.hit.setdefault(str(attempt), []).append(what)


@dataclass
class Tally:
    """Jobs and faults of all runs; every change is on disk before anything else happens."""

    path: Path
    seed: int = 0
    jobs: int = 0
    """How many have ended and were looked at."""
    attempts: int = 0
    lost: int = 0
    doubled: int = 0
    killed_by_mistake: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    open: list[Subject] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """One line for each fault that was found."""

    @classmethod
    def read(cls, path: Path, seed: int) -> Self:
        if not path.exists():
            return cls(path, seed)
        known = json.loads(path.read_text())
        subjects = [Subject(**each) for each in known.pop("open")]
        return cls(path, **known | {"open": subjects})

    def count_kill(self, what: str) -> None:
        self.kills[what] = self.kills.get(what, 0) + 1
        self.save()

    def save(self) -> None:
        content = {name: value for name, value in asdict(self).items() if name != "path"}
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(content, indent=1) + "\n")
        draft.rename(self.path)

    def __str__(self) -> str:
        kills = ", ".join(f"{number} {what}" for what, number in sorted(self.kills.items())) or "none"
        faults = f"{self.lost} lost, {self.doubled} doubled, {self.killed_by_mistake} killed by mistake"
        return f"{self.jobs} jobs in {self.attempts} attempts: {faults}; killed: {kills}"
