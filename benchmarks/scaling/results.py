"""What came of the runs, in one JSON file that is written anew after each of them."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.scaling.plan import Plan, Run


@dataclass(frozen=True)
class Setting:
    """What all runs share."""

    model: str
    seq_len: int
    vocabulary: int
    epochs: float
    epoch_rows: int
    """Rows in an epoch of the corpus."""
    batches: tuple[int, ...]
    seeds: tuple[int, ...]
    device: str

    @property
    def plan(self) -> Plan:
        """The runs that are wanted."""
        return Plan(self.batches, self.seeds)

    def steps(self, batch: int) -> int:
        """Optimizer steps of the budget at a batch."""
        return max(1, math.floor(self.epochs * self.epoch_rows / batch))


@dataclass(frozen=True)
class Result:
    """What came of one run."""

    run: Run
    steps: int
    mlm_loss: float | None
    """Of held-out text, in nats a masked position; None where the run diverged."""
    mlm_accuracy: float | None
    rows: int | None
    """Held-out rows."""
    tokens: int
    """Real tokens learned."""
    step_s: float
    """Seconds of all steps together."""


@dataclass(frozen=True)
class Results:
    """The runs that are done."""

    setting: Setting
    results: tuple[Result, ...] = ()

    @property
    def losses(self) -> dict[Run, float]:
        """The held-out loss of each run, infinity where it diverged."""
        return {each.run: math.inf if each.mlm_loss is None else each.mlm_loss for each in self.results}

    def add(self, result: Result) -> Self:
        """Return these results and one more."""
        return type(self)(self.setting, (*self.results, result))

    def write(self, file: Path) -> None:
        """Write the file whole or not at all."""
        new = file.with_suffix(".new")
        new.write_text(json.dumps(asdict(self), indent=1) + "\n")
        os.replace(new, file)  # noqa: PTH105 -- Path.replace is the same


def read(file: Path) -> Results:
    """Return the runs that a file holds.

    Raises:
        ValueError: it is no such file, or one of another version of the program.
    """
    try:
        document = json.loads(file.read_text())
        setting = Setting(**{name: _frozen(value) for name, value in document["setting"].items()})
        return Results(setting, tuple(_result(each) for each in document["results"]))
    except (KeyError, TypeError, json.JSONDecodeError) as problem:
        raise ValueError(f"{file}: {problem!r}; move it away and run benchmarks/batch_scaling.py again") from problem


def _result(document: dict[str, Any]) -> Result:
    return Result(**document | {"run": Run(**document["run"])})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
