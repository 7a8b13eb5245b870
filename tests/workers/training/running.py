"""Trains in this process, and reads what the run has left behind."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch.distributed as dist

from workers.contract.documents import parse_spec
from workers.contract.records import RECORD, Record, RunStatus, StepRecord
from workers.contract.run.folder import RunFolder
from workers.ranks import process_group
from workers.training import loop
from workers.training.reporting.reporter import Reporter
from workers.training.safety.signals import StopRequest


def train(
    document: dict[str, Any],
    folder: Path,
    home: Path,
    *,
    attempt: int = 1,
    stop: StopRequest | None = None,
    on_record: Callable[[Record], None] | None = None,
) -> RunStatus:
    """Train on one rank alone, or as one of the ranks that there are."""
    spec = parse_spec(document)
    folder.mkdir(parents=True, exist_ok=True)
    with nullcontext() if dist.is_initialized() else process_group(spec):
        reporter = Reporter(RunFolder(folder), attempt, on_record=on_record) if dist.get_rank() == 0 else None
        try:
            return loop.train(spec, RunFolder(folder), home / "data", reporter=reporter, attempt=attempt, stop=stop)
        finally:
            if reporter:
                reporter.close()


def records(folder: Path) -> list[Record]:
    return [RECORD.validate_json(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def steps(folder: Path) -> Iterator[StepRecord]:
    """The last record of each step, in the order of the steps."""
    last = {record.step: record for record in records(folder) if isinstance(record, StepRecord)}
    return iter(last[step] for step in sorted(last))


def checkpoints(folder: Path) -> list[str]:
    """The names of the checkpoint folders that are there, sorted."""
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def forget_after(folder: Path, step: int) -> None:
    """Take away what a run that was killed after `step` would not have had."""
    for path in (folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-").partition("-")[0]) > step:
            (path / "manifest.json").unlink()
