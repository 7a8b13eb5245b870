"""`bigbatch train`, `export`, `probe` and `data prepare`: this process becomes a program of the workers."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from server.client.errors import NoSuchJobError
from server.settings import Settings
from workers.contract.arguments import read_arguments
from workers.contract.run.attempts import check, check_is_free
from workers.contract.run.folder import RunFolder
from workers.contract.spec.job import JobSpec


def train(arguments: Sequence[str]) -> NoReturn:
    """Become the training process that these arguments ask for, so that signals and the exit code are its own.

    Raises:
        SpecError: the job file or the run folder cannot be used; nothing was started.
    """
    read = read_arguments(arguments)
    folder = RunFolder(read.run, read.storage)
    check_is_free(folder)
    check(folder, read.spec)
    _become(training_command(arguments, read.spec), read.spec.parallel.cpus_per_worker)


def export(run_or_id: str, arguments: Sequence[str], settings: Settings) -> NoReturn:
    """Become the process that exports the model of a run folder, or of a job whose id begins like this.

    Raises:
        NoSuchJobError: there is no such run, or several.
    """
    run = find_run(run_or_id, settings)
    module = ["-m", "workers.checkpoints.export"]
    _become([sys.executable, *module, str(run), *arguments, "--data", str(settings.data)], 1)


def probe(arguments: Sequence[str]) -> NoReturn:
    """Become the process that probes an encoder, with a thread for every processor that it may use."""
    _become([sys.executable, "-m", "workers.evaluation.probe", *arguments], len(os.sched_getaffinity(0)))


def prepare(arguments: Sequence[str]) -> NoReturn:
    """Become the process that prepares the text of a job file."""
    _become([sys.executable, "-m", "workers.corpus", *arguments], 1)


def find_run(run_or_id: str, settings: Settings) -> Path:
    """Return a run folder by its path, or that of the job whose id is this or begins with it and no other does.

    Raises:
        NoSuchJobError: there is none, or several.
    """
    path = Path(run_or_id).expanduser()
    if RunFolder(path).has_spec():
        return path.resolve()
    runs = settings.run_folder("").resolve()
    ids = [folder.name for folder in runs.iterdir() if folder.name.startswith(run_or_id)] if runs.is_dir() else []
    if run_or_id in ids or len(ids) == 1:
        return runs / (run_or_id if run_or_id in ids else ids[0])
    if ids:
        raise NoSuchJobError(f"{len(ids)} job ids begin with {run_or_id!r}: give more of the id")
    raise NoSuchJobError(
        f"{run_or_id!r} is neither a run folder (it has no spec.yaml) nor the beginning of a job id in {runs}: "
        "`bigbatch jobs` lists the jobs; --home names the folder of another server"
    )


def _become(command: list[str], threads: int) -> NoReturn:
    sys.stdout.flush()
    os.execve(sys.executable, command, os.environ | _environment(threads))  # noqa: S606 -- a list, no shell


def training_command(arguments: Sequence[str], spec: JobSpec) -> list[str]:
    """Return the command that trains `spec` on as many workers as it allows."""
    workers = max(spec.world_sizes())
    program = ["workers.torchrun", str(workers)] if workers > 1 else ["workers.train"]
    return [sys.executable, "-m", *program, *arguments]


def _environment(threads: int) -> dict[str, str]:
    """Return the variables that a program of the workers needs, and those that torchrun starts."""
    return {
        # A folder named workers or torch where the user stands is not the package.
        "PYTHONSAFEPATH": "1",
        # Names of files and what is in them are UTF-8 whatever the locale; what the terminal cannot show is escaped.
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": f"{sys.stdout.encoding}:backslashreplace",
        # Two threads of a worker that wait for each other on a busy machine are slower than one.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }
