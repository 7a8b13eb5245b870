"""The commands that ask something of a job that is there."""

from typing import TYPE_CHECKING, Annotated

import typer

from .options import Home, Id, Json, Token, Url, connected

if TYPE_CHECKING:
    from server.client.errors import JsonObject


def pause(job_id: Id, *, as_json: Json = False, home: Home, url: Url = None, token: Token = None) -> None:
    """Have a job save a checkpoint and give its workers back; `resume` has it go on.

    Example: bigbatch pause 1qx9
    """
    with connected(home, url, token) as client:
        _tell(client.pause(job_id), as_json=as_json)


def resume(job_id: Id, *, as_json: Json = False, home: Home, url: Url = None, token: Token = None) -> None:
    """Have a paused job go on from its newest checkpoint, when its turn comes.

    Example: bigbatch resume 1qx9
    """
    with connected(home, url, token) as client:
        _tell(client.resume(job_id), as_json=as_json)


def checkpoint(job_id: Id, *, as_json: Json = False, home: Home, url: Url = None, token: Token = None) -> None:
    """Have a job that trains save a checkpoint now, and go on.

    Example: bigbatch checkpoint 1qx9
    """
    with connected(home, url, token) as client:
        _tell(client.checkpoint(job_id), as_json=as_json)


def cancel(job_id: Id, *, as_json: Json = False, home: Home, url: Url = None, token: Token = None) -> None:
    """Stop a job; a running one saves a checkpoint first.

    Example: bigbatch cancel 1qx9
    """
    with connected(home, url, token) as client:
        _tell(client.cancel(job_id), as_json=as_json)


def retry(job_id: Id, *, as_json: Json = False, home: Home, url: Url = None, token: Token = None) -> None:
    """Have a job that failed or was cancelled go on from its newest checkpoint, under the same id.

    Example: bigbatch retry 1qx9
    """
    with connected(home, url, token) as client:
        _tell(client.retry(job_id), as_json=as_json)


def delete(
    job_id: Id,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """Delete a job that is paused or has ended, with its records, its checkpoints and its model.

    Example: bigbatch delete 1qx9
    """
    from .tables import print_json

    with connected(home, url, token) as client:
        job = client.job(job_id)
        if not yes:
            what = f"{job['name']} ({job['id']}, {job['status']}, step {job['step']:,} of {job['total_steps']:,})"
            typer.confirm(f"Delete {what} with its records, its checkpoints and its model?", abort=True, err=True)
            if typer.prompt("This cannot be undone. Type the job's name to delete it", err=True) != job["name"]:
                typer.echo("bigbatch: that is not its name: nothing is deleted", err=True)
                raise typer.Exit(1)
        deleted = client.delete(job["id"])
    if as_json:
        print_json(deleted)
    else:
        typer.echo(f"{job['id']} is deleted")


def _tell(job: "JsonObject", *, as_json: bool) -> None:
    from .tables import print_json

    if as_json:
        print_json(job)
    elif job["command"] == "checkpoint":
        typer.echo(f"{job['id']} is {job['status']} and saves a checkpoint after its present step")
    else:
        typer.echo(f"{job['id']} is {job['status']}")
