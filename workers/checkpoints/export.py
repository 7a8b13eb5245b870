"""`python -m workers.checkpoints.export RUN [DIR] --data DIR`: export the model of a run, on one process."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from workers.contract.files import BusyError
from workers.contract.manifests import UnknownFormatError
from workers.contract.problems import SpecError
from workers.contract.run.folder import RunFolder, RunFolderError
from workers.contract.sources import CorpusError

from .errors import ExportError
from .to_transformers import Exported, export
from .weights import Progress

_REFUSED = (ExportError, CorpusError, SpecError, RunFolderError, UnknownFormatError, BusyError, OSError)


def main(command_line: Sequence[str] | None = None) -> int:
    """Export what the command line names, this process's own where none is given; return the exit code."""
    given = _parser().parse_args(command_line)
    folder = RunFolder(given.run)
    target = (given.dir or folder.export).resolve()
    try:
        _check_is_idle(folder)
        with _show(given.run.name, as_json=given.json) as report:
            exported = export(folder, folder.spec(), target, given.data, step=given.step, report=report)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was changed\n")
        return 130
    except _REFUSED as error:
        problem = {"title": "The model was not exported.", "detail": str(error)}
        sys.stderr.write(f"{json.dumps(problem) if given.json else f'bigbatch: {error}'}\n")
        return 2
    _tell(exported, as_json=given.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.checkpoints.export", description="Export a run's model.")
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("dir", type=Path, nargs="?", help="the folder to make (default: export in the run folder)")
    parser.add_argument("--step", type=int, help="export the checkpoint of this step, not the newest")
    parser.add_argument("--data", type=Path, required=True, help="the folder that prepared text is kept in")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _check_is_idle(folder: RunFolder) -> None:
    if not folder.has_spec():
        raise ExportError(f"{folder.path} is not a run folder: it has no spec.yaml")
    if (holder := folder.lock.held_by()) is not None:
        raise ExportError(
            f"{folder.path} is in use by {holder}, which may remove a checkpoint while it is read: wait for its end, "
            "or pause or cancel it"
        )


@contextmanager
def _show(name: str, *, as_json: bool) -> Iterator[Progress]:
    """Show a bar on standard error, in a terminal that has one."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=as_json) as bar:
        task = bar.add_task(name, total=1.0)
        yield lambda what, done: bar.update(task, description=what, completed=done)


def _tell(exported: Exported, *, as_json: bool) -> None:
    manifest, path = exported.manifest, exported.path
    if as_json:
        document = {"path": str(path), "size_bytes": manifest.size_bytes} | manifest.model_dump(mode="json")
        sys.stdout.write(f"{json.dumps(document)}\n")
        return
    sys.stdout.write(f"The model of step {manifest.step:,} is in {path} ({manifest.size_bytes / 1e6:,.1f} MB)\n")
    sys.stdout.write(f"Load it with: transformers.pipeline('fill-mask', {str(path)!r})\n")


if __name__ == "__main__":
    sys.exit(main())
