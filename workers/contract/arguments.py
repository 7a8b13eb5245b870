"""The command line of a training without a server: that of `bigbatch train` and of `python -m workers.train`."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .assignments import assign
from .documents import parse_spec, read_file
from .pretrained import check_folder
from .run.folder import RunFolder
from .run.storage import check_is
from .sources import check_files
from .spec.job import JobSpec

_EXAMPLE = "Example: bigbatch train configs/demo.yaml --run runs/demo"


@dataclass(frozen=True, slots=True)
class TrainArguments:
    """What is to be trained, where, and how it is shown."""

    spec: JobSpec
    run: Path
    """The run folder."""
    as_json: bool
    storage: str | None = None
    """The URL of what is stored of the run; None where that is the run folder."""


def read_arguments(arguments: Sequence[str] | None = None) -> TrainArguments:
    """Read the command line, this process's own where none is given, and the job file that it names.

    Raises:
        SpecError: the file, or a text or a folder that it names, cannot be read or is not valid.
        StorageError: what is stored of the run on another machine cannot be read.
        SystemExit: help was asked for, or the command line is not valid.
    """
    given = _parser().parse_args(arguments)
    spec = parse_spec(assign(read_file(given.file), given.set))
    run = (given.run or Path("runs") / spec.name).resolve()
    storage = check_is(run, given.storage)
    if spec.start_from is None and not RunFolder(run, storage).finished():  # else there are weights already
        check_folder(spec.model)
    check_files(spec.data)
    return TrainArguments(spec, run, given.json, storage)


def home() -> Path:
    """Return the folder of prepared text and of the runs of jobs: BIGBATCH_HOME, else ~/.bigbatch."""
    return Path(os.environ.get("BIGBATCH_HOME") or Path.home() / ".bigbatch")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bigbatch train", description="Train on this machine, without a server or Ray.", epilog=_EXAMPLE
    )
    parser.add_argument("file", type=Path, help="a job file, e.g. configs/demo.yaml")
    parser.add_argument("--run", type=Path, help="run folder, resumed if it has checkpoints (default: runs/NAME)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="another value, e.g. phases[0].lr=3.0e-3"
    )
    parser.add_argument(
        "--storage", metavar="URL", help="store checkpoints in URL/NAME OF THE RUN FOLDER, e.g. s3://BUCKET/runs"
    )
    parser.add_argument("--json", action="store_true", help="print every record as a line of JSON")
    return parser
