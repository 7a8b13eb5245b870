"""The commands about runs and models on this machine, without a server: train, export, probe."""

from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import Home, Json, Token, Url
from server.settings import Settings


def train(context: typer.Context) -> None:
    """Train on this machine, without a server or Ray."""
    from server.cli.local import train as become_training

    context.meta["json"] = "--json" in context.args  # read again when an error is reported
    become_training(context.args)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN_OR_ID", help="A run folder, a job's id, or the id's beginning.")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="The folder to make.", show_default="RUN/export")
    ] = None,
    *,
    step: Annotated[
        int | None, typer.Option(min=0, help="Take the checkpoint of this step, not the newest one.")
    ] = None,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """Write a run's model to a folder that `transformers` loads offline; with --url, download a finished one.

    Example: bigbatch export runs/demo models/demo
    """
    from server.cli.local import export as become_export

    if url is not None:
        _download(run, folder, step, as_json=as_json, server=(home, url, token))
        return
    arguments = [] if folder is None else [str(folder.expanduser().resolve())]
    arguments += [] if step is None else ["--step", str(step)]
    become_export(run, [*arguments, *(["--json"] if as_json else [])], Settings(home))


def _download(
    job: str, folder: Path | None, step: int | None, *, as_json: bool, server: tuple[Path, str, str | None]
) -> None:
    from server.cli.output.tables import print_json
    from server.client import Client
    from server.client.download import download

    if step is not None:
        raise typer.BadParameter("another server has one export of a job: leave --step out", param_hint="--step")
    with Client(*server) as client:
        found = client.job(job)
        target = (folder or Path(f"{found['name']}-{found['id']}")).expanduser().resolve()
        manifest = download(client, found["id"], target)
    if as_json:
        print_json({"path": str(target), "size_bytes": manifest.size_bytes} | manifest.model_dump(mode="json"))
    else:
        typer.echo(f"The model of step {manifest.step:,} is in {target} ({manifest.size_bytes / 1e6:,.1f} MB)")


def probe(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="An export, or another BERT's folder.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Fine-tune an encoder on WordNet's glosses for a short time, and compare it with a random one of its shape.

    Example: bigbatch probe models/demo
    """
    from server.cli.local import probe as become_probe

    become_probe([str(folder.resolve()), *(["--json"] if as_json else [])])
