"""How many tokens a second a run has learned, read from its records."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from workers.contract.problems import Problem, SpecError
from workers.contract.records import RECORD, Record, StatusRecord, StepRecord
from workers.contract.run.folder import RunFolder

FIRST_STEPS = 2
"""Of an attempt: what is compiled, allocated and read for the first time does not count."""


class Rate(NamedTuple):
    """Tokens a second of all workers together, padding left out."""

    tokens_per_s: float
    workers: int | None
    """On which it was measured; None where it was given."""

    def on(self, workers: int) -> float:
        """Return the rate of so many workers, if each is as fast as those that were measured."""
        return self.tokens_per_s if self.workers is None else self.tokens_per_s * workers / self.workers


def measured(run: Path) -> dict[int, Rate]:
    """Return the median rate of each phase of a run, by its number of tokens a row.

    Raises:
        SpecError: the folder has no step from which a rate could be read.
    """
    spec = RunFolder(run).spec()
    rates: dict[int, list[Rate]] = defaultdict(list)
    workers, steps = 1, 0
    for record in _records(run):
        if isinstance(record, StatusRecord) and record.world_size is not None:
            workers, steps = record.world_size, 0
        elif isinstance(record, StepRecord):
            steps += 1
            if steps > FIRST_STEPS:
                rates[spec.phases[record.phase].seq_len].append(Rate(record.tokens_per_s, workers))
    if not rates:
        problem = f"no attempt has taken more than {FIRST_STEPS} steps"
        raise SpecError([Problem("--like", str(run), problem, "name a run that has trained for longer")])
    return {seq_len: _median(found) for seq_len, found in rates.items()}


def _median(rates: list[Rate]) -> Rate:
    """Return the median of the rates on the number of workers that was used last."""
    workers = rates[-1].workers
    return Rate(statistics.median(rate.tokens_per_s for rate in rates if rate.workers == workers), workers)


def _records(run: Path) -> Iterator[Record]:
    journal = RunFolder(run).journal
    for line in journal.read_bytes().splitlines() if journal.exists() else []:
        try:
            yield RECORD.validate_json(line)
        except ValidationError:  # the last line, while a run writes it
            return
