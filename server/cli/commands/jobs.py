"""The commands about jobs of a server: submit, clone, jobs, show, watch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.options import Changes, File, Home, Id, Json, Token, Url, connected
from server.jobs.status import JobStatus

if TYPE_CHECKING:
    from server.client import Client, results


def submit(
    file: File,
    *,
    name: Annotated[str | None, typer.Option(help="A name to use instead of the one in the file.")] = None,
    changes: Changes = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only have the server check the job, and print what it would take.")
    ] = False,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """Check a job and give it to the server.

    Example: bigbatch submit configs/demo.yaml --watch
    """
    from server.cli.files import read_job

    if dry_run and watch:
        raise typer.BadParameter("a dry run starts no job that could be watched", param_hint="--watch")
    document, _ = read_job(file, name, changes or ())
    with connected(home, url, token) as client:
        if dry_run:
            _show_plan(client.plan(document), as_json=as_json)
            return
        _tell(client, client.submit(document), watch=watch, as_json=as_json)


def sweep(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A job with a grid or a list of variants.")],
    *,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """Submit a job in many variants: the file has `job`, and `grid` or `list` with fields that differ.

    Example: bigbatch sweep rates.yaml
    """
    from server.cli.output.tables import jobs_table, print_json, screen
    from workers.contract.documents import read_file, resolve_paths
    from workers.contract.problems import counted

    document = read_file(file)
    if isinstance(document, dict) and "job" in document:
        document["job"] = resolve_paths(document["job"], file.absolute().parent)
    with connected(home, url, token) as client:
        made = client.submit_sweep(document)
    if as_json:
        print_json(made)
        return
    screen().print(jobs_table(made["jobs"]))
    typer.echo(f"sweep {made['id']}: {counted(len(made['jobs']), 'job')}")


def clone(
    job_id: Id,
    *,
    from_step: Annotated[
        int | None, typer.Option(min=1, help="Go on from the checkpoint of this step, instead of beginning anew.")
    ] = None,
    changes: Changes = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends.")] = False,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """Submit a job again with other settings, or branch from one of its checkpoints.

    Example: bigbatch clone 1qx9 --from-step 4000 --set phases[1].lr=3.0e-3
    """
    from workers.contract.assignments import read_assignments

    with connected(home, url, token) as client:
        job = client.clone(job_id, from_step, read_assignments(changes or ()))
        _tell(client, job, watch=watch, as_json=as_json)


def jobs(
    *,
    status: Annotated[JobStatus | None, typer.Option(case_sensitive=False, help="Only jobs of this status.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY[=VALUE]", help="Only jobs with this label; with all of several.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs with this text in their names.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only jobs that this owner submitted.")] = None,
    sort: Annotated[
        str, typer.Option(help="created, name, owner, status or priority; with a minus, from the last one on.")
    ] = "-created",
    limit: Annotated[int, typer.Option(min=1, help="How many to list at most.")] = 20,
    as_json: Json = False,
    home: Home,
    url: Url = None,
    token: Token = None,
) -> None:
    """List jobs.

    Example: bigbatch jobs --status RUNNING
    """
    from server.cli.output.tables import jobs_table, print_json, screen

    with connected(home, url, token) as client:
        found = list(client.jobs(status, limit, labels=label or (), name=name, owner=owner, sort=sort))
    if as_json:
        print_json(found)
    elif found:
        screen().print(jobs_table(found))
    else:
        is_narrowed = label or name or owner
        typer.echo(_no_job(status, is_narrowed=bool(is_narrowed)))


def _no_job(status: JobStatus | None, *, is_narrowed: bool) -> str:
    if is_narrowed:
        return "No job meets these conditions."
    return f"No job is {status}." if status else "No jobs yet. Submit one with: bigbatch submit FILE"


def show(job_id: Id, *, as_json: Json = False, home: Home, url: Url = None, token: Token = None) -> None:
    """Show what is known of a job.

    Example: bigbatch show 1qx9
    """
    from server.cli.output.tables import job_table, print_json, screen

    with connected(home, url, token) as client:
        job = client.job(job_id)
        place = client.queue(job["id"]) if job["status"] == JobStatus.QUEUED else None
    if as_json:
        print_json(job)
        return
    screen().print(job_table(job, place))
    typer.echo(f"{client.url}/jobs/{job['id']}")


def watch(job_id: Id, *, as_json: Json = False, home: Home, url: Url = None, token: Token = None) -> None:
    """Follow a job until it ends: 0 if it succeeded, 1 if not.

    Example: bigbatch watch 1qx9
    """
    with connected(home, url, token) as client:
        _watch(client, client.job(job_id)["id"], as_json=as_json)


def _tell(client: "Client", job: "results.Submitted", *, watch: bool, as_json: bool) -> None:
    """Say that a job was accepted, and follow it where that is wanted."""
    from server.cli.output.tables import print_json, print_warnings

    if as_json:
        print_json(job)
    else:
        print_warnings(job["warnings"])
        typer.echo(f"{job['id']} is {job['status']}: {client.url}/jobs/{job['id']}")
    if watch:
        _watch(client, job["id"], as_json=as_json)


def _show_plan(plan: "results.Plan", *, as_json: bool) -> None:
    from pydantic import TypeAdapter

    from server.cli.output.plans import print_plan
    from server.cli.output.tables import print_json
    from workers.planning.plan import Plan

    if as_json:
        print_json(plan)
    else:
        print_plan(TypeAdapter(Plan).validate_python(plan))


def _watch(client: "Client", job_id: str, *, as_json: bool) -> None:
    from rich.console import Console

    from server.cli.output.progress import watch as follow

    try:
        job = follow(client, job_id, Console(), as_json=as_json)
    except KeyboardInterrupt:
        typer.echo(
            f"\nThe job continues. To watch it again: bigbatch watch {job_id}. To stop it: bigbatch cancel {job_id}",
            err=True,
        )
        raise typer.Exit(130) from None
    raise typer.Exit(0 if job["status"] == "SUCCEEDED" else 1)
