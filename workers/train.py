"""`python -m workers.train FILE`: one training without a server and without Ray, the same loop.

Started by torchrun it is one rank of many; started alone it is the only one.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .checkpoints.errors import CheckpointError
from .contract.documents import parse_spec, read_file
from .contract.problems import Problem, SpecError
from .contract.records import CheckpointRecord, Record, RunStatus, StatusRecord, StepRecord
from .contract.run_folder import RunFolder
from .contract.sources import CorpusError, check_files
from .contract.spec.job import JobSpec
from .ranks import process_group, rank
from .training import loop
from .training.reporter import Reporter
from .training.signals import InterruptedBeforeTrainingError, StopRequest, stop_on_signals


def main() -> int:
    """Train the job that the command line names; return the exit code."""
    arguments = _parser().parse_args()
    with stop_on_signals() as stop:
        try:
            return _run(arguments, stop)
        except InterruptedBeforeTrainingError as interruption:
            sys.stderr.write(f"ended by {interruption} before the first step\n")
            return stop.exit_code


def _run(arguments: argparse.Namespace, stop: StopRequest) -> int:
    try:
        spec = parse_spec(read_file(arguments.file))
        check_files(spec.data)
        folder = (arguments.run or Path("runs") / spec.name).resolve()
        claim(folder, spec)
        with process_group(spec):
            return _train(spec, folder, stop, as_json=arguments.json)
    except (SpecError, CorpusError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except loop.DivergedError as error:
        sys.stderr.write(f"diverged: {error}\n")
        return 1
    except CheckpointError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def claim(folder: Path, spec: JobSpec) -> None:
    """Make the run folder this specification's own, so that no other run is resumed by mistake.

    Raises:
        SpecError: the folder belongs to another specification.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be made: {error.strerror}"
        raise SpecError([Problem("--run", repr(str(folder)), problem, "name another folder with --run")]) from None
    run = RunFolder(folder)
    if run.has_spec() and not _is_of(run, spec):
        remedy = "name another folder with --run, or remove this one"
        raise SpecError([Problem("--run", repr(str(folder)), "holds a run of another specification", remedy)])
    run.put_spec(spec)


def _is_of(run: RunFolder, spec: JobSpec) -> bool:
    try:
        return run.spec() == spec
    except SpecError:
        return False


def home() -> Path:
    """Return the folder that prepared text is kept in: BIGBATCH_HOME, else ~/.bigbatch."""
    return Path(os.environ.get("BIGBATCH_HOME") or Path.home() / ".bigbatch")


def _train(spec: JobSpec, folder: Path, stop: StopRequest, *, as_json: bool) -> int:
    run = RunFolder(folder)
    if rank() != 0:
        return _exit_code(loop.train(spec, run, home(), reporter=None, stop=stop), stop)
    with _show(spec, as_json=as_json) as on_record:
        reporter = Reporter(run, on_record=on_record)
        try:
            outcome = loop.train(spec, run, home(), reporter=reporter, stop=stop)
        except InterruptedBeforeTrainingError:
            reporter.emit(StatusRecord(status=RunStatus.PAUSED, attempt=1))
            raise
        except Exception as error:
            reporter.emit(StatusRecord(status=RunStatus.FAILED, attempt=1, error=str(error)))
            raise
        finally:
            reporter.close()
    return _exit_code(outcome, stop)


def _exit_code(outcome: RunStatus, stop: StopRequest) -> int:
    if outcome is RunStatus.SUCCEEDED:
        return 0
    return stop.exit_code if stop.is_asked else 1


@contextmanager
def _show(spec: JobSpec, *, as_json: bool) -> Iterator[Callable[[Record], None]]:
    """Show records as they come: as JSON lines, or as a progress bar."""
    if as_json:
        console = Console(soft_wrap=True)
        yield lambda record: console.out(record.model_dump_json(), highlight=False)
        return
    console = Console()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        task = progress.add_task(spec.name, total=spec.total_steps, numbers="")

        def on_record(record: Record) -> None:
            if isinstance(record, StepRecord):
                numbers = (
                    f"step {record.step}  loss {record.loss or float('nan'):.3f}  {record.tokens_per_s:,.0f} tokens/s"
                )
                progress.update(task, completed=record.step, numbers=numbers)
            elif isinstance(record, CheckpointRecord):
                console.print(f"checkpoint of step {record.step} in {record.path}")

        yield on_record


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bigbatch train", description="Train without a server and without Ray.")
    parser.add_argument("file", type=Path, help="a job file, e.g. configs/demo.yaml")
    parser.add_argument("--run", type=Path, help="run folder, resumed if it has checkpoints (default: runs/NAME)")
    parser.add_argument("--json", action="store_true", help="print every record as a line of JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
