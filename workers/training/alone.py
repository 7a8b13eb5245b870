"""One training without a server and without Ray. `workers.train` calls it after it has set its signal handlers."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from workers import ranks
from workers.checkpoints.errors import CheckpointError
from workers.contract.arguments import TrainArguments, home, read_arguments
from workers.contract.problems import SpecError
from workers.contract.records import (
    AlertRecord,
    CheckpointRecord,
    EvaluationRecord,
    LogRecord,
    Record,
    RunStatus,
    StatusRecord,
    StepRecord,
)
from workers.contract.run.attempts import Begun, begin
from workers.contract.run.folder import RunFolder
from workers.contract.run.remote import StorageError
from workers.contract.sources import CorpusError
from workers.contract.spec.job import JobSpec
from workers.planning.size import check_size

from . import loop
from .reporting.reporter import Reporter
from .safety.signals import InterruptedBeforeTrainingError, StopRequest


class _RefusedError(Exception):
    """Rank 0 may not begin, and has said why."""


def run(command_line: Sequence[str] | None, stop: StopRequest) -> int:
    """Train the job that the command line names, this process's own where none is given; return the exit code.

    Raises:
        InterruptedBeforeTrainingError: the process was told to end before its first step.
    """
    try:
        arguments = read_arguments(command_line)
        with ranks.process_group(arguments.spec):
            return _train(arguments, stop)
    except (SpecError, CorpusError, StorageError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except _RefusedError:
        return 2
    except loop.DivergedError as error:
        sys.stderr.write(f"diverged: {error}\n")
        return 1
    except CheckpointError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _train(arguments: TrainArguments, stop: StopRequest) -> int:
    spec, folder = arguments.spec, RunFolder(arguments.run, arguments.storage)
    check_size(spec, ranks.world_size())  # before the folder is made
    begun = _begin(folder, spec)
    try:
        if ranks.rank() != 0:
            outcome = loop.train(spec, folder, home() / "data", reporter=None, attempt=begun.attempt, stop=stop)
        else:
            outcome = _train_and_report(arguments, folder, begun, stop)
    finally:
        folder.lock.release()
    if outcome is RunStatus.SUCCEEDED:
        return 0
    return stop.exit_code if stop.is_asked else 1


def _begin(folder: RunFolder, spec: JobSpec) -> Begun:
    """Begin the next attempt, on rank 0 for all."""
    begun: Begun | None = None
    error: SpecError | StorageError | None = None
    if ranks.rank() == 0:
        try:
            begun = begin(folder, spec, home() / "runs")
        except (SpecError, StorageError) as problem:
            error = problem
    begun = ranks.as_rank_0_says(begun)
    if begun is None:
        raise error or _RefusedError
    return begun


def _train_and_report(arguments: TrainArguments, folder: RunFolder, begun: Begun, stop: StopRequest) -> RunStatus:
    spec, attempt = arguments.spec, begun.attempt
    with _show(spec, as_json=arguments.as_json) as on_record:
        reporter = Reporter(folder, attempt, on_record=on_record)
        if begun.changes:
            detail = "; ".join(map(str, begun.changes))
            reporter.emit(AlertRecord(level="info", title="The specification has changed", detail=detail))
        try:
            return loop.train(spec, folder, home() / "data", reporter=reporter, attempt=attempt, stop=stop)
        except InterruptedBeforeTrainingError:
            reporter.emit(StatusRecord(status=RunStatus.PAUSED, attempt=attempt))
            raise
        except Exception as error:
            reporter.emit(StatusRecord(status=RunStatus.FAILED, attempt=attempt, error=str(error)))
            raise
        finally:
            reporter.close()


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
                progress.update(task, completed=record.step, numbers=_numbers(record))
            elif isinstance(record, CheckpointRecord):
                console.print(f"checkpoint of step {record.step} in {escape(record.path)}", soft_wrap=True)
            elif isinstance(record, EvaluationRecord):
                console.print(f"held-out text: {record.figures}", soft_wrap=True, highlight=False)
            elif isinstance(record, LogRecord):
                console.print(escape(record.text), soft_wrap=True, highlight=False)
            elif isinstance(record, AlertRecord):
                console.print(f"{record.level}: {escape(record.title)}: {escape(record.detail)}", soft_wrap=True)

        yield on_record


def _numbers(record: StepRecord) -> str:
    """Name both losses: the total is what is minimized, and the masked words' is what papers show."""
    loss, mlm_loss = (math.nan if loss is None else loss for loss in (record.loss, record.mlm_loss))
    return f"step {record.step}  loss {loss:.3f} (MLM {mlm_loss:.3f})  {record.tokens_per_s:,.0f} tokens/s"
