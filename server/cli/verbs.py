"""The commands that ask something of a job that is there. Repeating one changes nothing."""

from typing import TYPE_CHECKING

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


def _tell(job: "JsonObject", *, as_json: bool) -> None:
    from .tables import print_json

    if as_json:
        print_json(job)
    elif job["command"] == "checkpoint":
        typer.echo(f"{job['id']} is {job['status']} and saves a checkpoint after its present step")
    else:
        typer.echo(f"{job['id']} is {job['status']}")
