"""`bigbatch backup` and `bigbatch restore`: what a server knows, in one file."""

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import Home, Json
from server.settings import Settings


def backup(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="The file to write; one that is there is replaced.")],
    *,
    home: Home,
    as_json: Json = False,
) -> None:
    """Write the database, the tokens and the small files of all runs to one file, also while the server runs.

    Checkpoints and exported models are not in it. Whoever can read the file can use the tokens in it.

    Example: bigbatch backup /backups/bigbatch.tar
    """
    from server.storage.backup import back_up

    runs = back_up(Settings(home), file)
    _tell({"backup": str(file), "home": str(home), "runs": runs}, as_json=as_json)


def restore(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file that `bigbatch backup` wrote.")],
    *,
    home: Home,
    as_json: Json = False,
) -> None:
    """Put a backup into a home that has no database; `bigbatch serve` then finds its jobs, also those that still run.

    Example: bigbatch restore /backups/bigbatch.tar --home /data/bigbatch
    """
    from server.storage.backup import restore as put_back

    runs = put_back(file, Settings(home))
    _tell({"restored": str(file), "home": str(home), "runs": runs}, as_json=as_json)


def _tell(done: dict[str, object], *, as_json: bool) -> None:
    from server.cli.output.tables import print_json

    if as_json:
        print_json(done)
    else:
        typer.echo(", ".join(f"{name}: {value}" for name, value in done.items()))
