"""The commands that ask something of a job that is there."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.options import Home, Id, Json, Token, Url, connected

if TYPE_CHECKING:
    from server.client.results import Job


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


def checkpoints(
    job_id: Id,
    *,
    delete: Annotated[int | None, typer.Option(metavar="STEP", min=0, help="First remove that of this step.")] = None,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the checkpoints of a job; each can be branched from with `clone --from-step`.

    Example: bigbatch checkpoints 1qx9
    """
    from server.cli.output.tables import checkpoints_table, print_json, screen

    with connected(home, url, token) as client:
        found = client.checkpoints(job_id) if delete is None else client.delete_checkpoint(job_id, delete)
    if as_json:
        print_json(found)
    elif found:
        screen().print(checkpoints_table(found))
    else:
        typer.echo("There is no checkpoint.")


def logs(
    job_id: Id,
    *,
    rank: Annotated[
        int | None,
        typer.Option(min=0, show_default="the driver, which prints all of theirs", help="Which worker."),
    ] = None,
    attempt: Annotated[
        int | None,
        typer.Option(min=0, show_default="the newest", help="Which attempt; 0 is the preparation of the job's text."),
    ] = None,
    lines: Annotated[int, typer.Option(min=0, max=10_000, help="How many of the last lines.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt has ended.")] = False,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print what a job's processes printed. With --json, each line is a JSON object.

    Example: bigbatch logs 1qx9 --rank 0 --follow
    """
    with connected(home, url, token) as client:
        for line in client.logs(job_id, rank=rank, attempt=attempt, lines=lines, follow=follow):
            typer.echo(json.dumps({"line": line}) if as_json else line)


def priority(
    job_id: Id,
    number: Annotated[int, typer.Argument(min=-1000, max=1000, help="Higher ones start first.")],
    *,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """Give a job that waits another priority; jobs have 0 unless they say otherwise.

    Example: bigbatch priority 1qx9 10
    """
    from server.cli.output.tables import print_json

    with connected(home, url, token) as client:
        job = client.amend(job_id, priority=number)
    if as_json:
        print_json(job)
    else:
        typer.echo(f"{job['id']} has priority {job['priority']}")


def label(
    job_id: Id,
    labels: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="KEY= removes a label.")],
    *,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """Set labels of a job, by which `jobs --label` finds it, or remove some.

    Example: bigbatch label 1qx9 team=nlp draft=
    """
    from server.cli.output.tables import print_json

    pairs = [text.partition("=") for text in labels]
    if bad := [key + sign for key, sign, _ in pairs if not (key and sign)]:
        raise typer.BadParameter(f"{bad[0]!r} is not KEY=VALUE", param_hint="KEY=VALUE")
    with connected(home, url, token) as client:
        job = client.amend(job_id, labels={key: value or None for key, _, value in pairs})
    if as_json:
        print_json(job)
    else:
        told = ", ".join(f"{key}={value}" for key, value in job["labels"].items())
        typer.echo(f"{job['id']} has {f'the labels {told}' if told else 'no labels'}")


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
    from server.cli.output.tables import print_json

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


def _tell(job: "Job", *, as_json: bool) -> None:
    from server.cli.output.tables import print_json

    if as_json:
        print_json(job)
    elif job["command"] == "checkpoint":
        typer.echo(f"{job['id']} is {job['status']} and saves a checkpoint after its present step")
    else:
        typer.echo(f"{job['id']} is {job['status']}")
