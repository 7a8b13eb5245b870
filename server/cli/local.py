"""`bigbatch train`: one job on this machine, without a server or Ray, in a process that takes the place of this one."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

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
    folder = RunFolder(read.run)
    check_is_free(folder)
    check(folder, read.spec)
    sys.stdout.flush()
    command = training_command(arguments, read.spec)
    os.execve(sys.executable, command, os.environ | training_environment(read.spec))  # noqa: S606 -- a list, no shell


def training_command(arguments: Sequence[str], spec: JobSpec) -> list[str]:
    """Return the command that trains `spec` on as many workers as it allows."""
    workers = max(spec.world_sizes())
    # The -- keeps torchrun from reading --run as the beginning of an option of its own.
    torchrun = f"torch.distributed.run --standalone --nproc-per-node {workers} -m --".split()
    return [sys.executable, "-m", *(torchrun if workers > 1 else []), "workers.train", *arguments]


def training_environment(spec: JobSpec) -> dict[str, str]:
    """Return the variables that the training and the workers that torchrun starts need."""
    return {
        # A folder named workers or torch where the user stands is not the package.
        "PYTHONSAFEPATH": "1",
        # Names of files and what is in them are UTF-8 whatever the locale; what the terminal cannot show is escaped.
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": f"{sys.stdout.encoding}:backslashreplace",
        # Two threads of a worker that wait for each other on a busy machine are slower than one.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(spec.parallel.cpus_per_worker)),
    }
