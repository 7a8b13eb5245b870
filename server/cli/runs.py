"""The commands about runs on this machine, without a server: train."""

from pathlib import Path
from typing import Annotated

import typer

from .options import File, Json


def train(
    file: File,
    *,
    run: Annotated[
        Path | None, typer.Option("--run", help="Folder of the run; one that has checkpoints is resumed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train on this machine without server and Ray.

    Example: bigbatch train configs/demo.yaml --run runs/demo
    """
    from .files import read_job
    from .local import train as become_training

    _, spec = read_job(file)
    become_training(file, spec, run, as_json=as_json)
