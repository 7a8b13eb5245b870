"""The command `bigbatch`. Heavy libraries are imported by the commands that need them, so that it starts fast."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from server.settings import Settings, default_home

if TYPE_CHECKING:
    from server.client.client import Client
    from workers.contract.spec.job import JobSpec

_DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"


class _Commands(TyperGroup):
    """Turns the errors that a user can cause into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        from server.client.client import ClientError
        from workers.contract.problems import SpecError

        try:
            return super().invoke(ctx)
        except SpecError as error:
            problem = {"title": "the job is not valid", "errors": [one.as_dict() for one in error.problems]}
            _report(problem, as_json=ctx.meta.get("json", False))
            raise typer.Exit(2) from None
        except ClientError as error:
            _report(error.as_dict(), as_json=ctx.meta.get("json", False))
            raise typer.Exit(error.exit_code) from None


app = typer.Typer(
    cls=_Commands,
    help="Distributed large-batch BERT pre-training with LAMB.",
    epilog="Begin with: bigbatch doctor, then bigbatch demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _remember(context: typer.Context, value: bool) -> bool:
    context.meta["json"] = value  # read again when an error is reported
    return value


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"bigbatch {version('bigbatch')}")
        raise typer.Exit


_File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A job specification in YAML or JSON.")]
_Id = Annotated[str, typer.Argument(help="The job's id, or its beginning.")]
_Json = Annotated[bool, typer.Option("--json", callback=_remember, help="Print JSON.")]
_Home = Annotated[
    Path,
    typer.Option(
        "--home",
        default_factory=default_home,
        show_default="$BIGBATCH_HOME or ~/.bigbatch",
        resolve_path=True,
        help="Folder of the server's state.",
    ),
]
_Url = Annotated[str | None, typer.Option("--url", envvar="BIGBATCH_URL", help="A server that runs elsewhere.")]
_Token = Annotated[str | None, typer.Option("--token", envvar="BIGBATCH_TOKEN", help="Its token.")]
_Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]
_Port = Annotated[int, typer.Option("--port", min=1, max=65_535, help="Port to listen on.")]


@app.callback()
def _bigbatch(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(*, home: _Home, host: _Host = "127.0.0.1", port: _Port = 8000, as_json: _Json = False) -> None:
    """Run the server: REST API, dashboard and scheduler.

    Example: bigbatch serve --port 8001 --home /data/bigbatch
    """
    from server.http.serve import serve as run

    raise typer.Exit(run(Settings(home=home, host=host, port=port), as_json=as_json))


@app.command()
def submit(
    file: _File,
    *,
    name: Annotated[str | None, typer.Option(help="A name in place of the file's.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends.")] = False,
    as_json: _Json = False,
    home: _Home,
    url: _Url = None,
    token: _Token = None,
) -> None:
    """Check a job and give it to the server.

    Example: bigbatch submit configs/demo.yaml --watch
    """
    document, _ = _read(file, name)
    with _client(home, url, token) as client:
        job = client.submit(document)
        if as_json:
            _print_json(job)
        else:
            typer.echo(f"{job['id']} is {job['status']}: {client.link('/jobs/' + job['id'])}")
        if watch:
            _watch(client, job["id"], as_json=as_json)


@app.command()
def train(
    file: _File,
    *,
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the run; there again, it resumes.")] = None,
    as_json: _Json = False,
) -> None:
    """Train on this machine without server and Ray.

    Example: bigbatch train configs/demo.yaml --run runs/demo
    """
    from . import local as training

    _, spec = _read(file)
    training.train(file, spec, run, as_json=as_json)


@app.command()
def jobs(
    *,
    status: Annotated[str | None, typer.Option(help="Only jobs of this status, e.g. RUNNING.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 20,
    as_json: _Json = False,
    home: _Home,
    url: _Url = None,
    token: _Token = None,
) -> None:
    """List jobs.

    Example: bigbatch jobs --status RUNNING
    """
    with _client(home, url, token) as client:
        found = list(client.jobs(status.upper() if status else None, limit))
    if as_json:
        _print_json(found)
        return
    from rich.console import Console

    from .tables import jobs_table

    Console().print(jobs_table(found) if found else "No jobs. Submit one: bigbatch submit configs/demo.yaml")


@app.command()
def show(job_id: _Id, *, as_json: _Json = False, home: _Home, url: _Url = None, token: _Token = None) -> None:
    """Show what is known of a job.

    Example: bigbatch show 0f3a
    """
    with _client(home, url, token) as client:
        job = client.job(job_id)
        link = client.link(f"/jobs/{job['id']}")
    if as_json:
        _print_json(job)
        return
    from rich.console import Console

    from .tables import job_table

    Console().print(job_table(job))
    typer.echo(link)


@app.command()
def watch(job_id: _Id, *, as_json: _Json = False, home: _Home, url: _Url = None, token: _Token = None) -> None:
    """Follow a job until it ends: 0 if it succeeded, 1 if not.

    Example: bigbatch watch 0f3a
    """
    with _client(home, url, token) as client:
        _watch(client, client.job(job_id)["id"], as_json=as_json)


@app.command()
def cancel(job_id: _Id, *, as_json: _Json = False, home: _Home, url: _Url = None, token: _Token = None) -> None:
    """Stop a job; a running one saves a checkpoint first.

    Example: bigbatch cancel 0f3a
    """
    with _client(home, url, token) as client:
        job = client.cancel(job_id)
    if as_json:
        _print_json(job)
    else:
        typer.echo(f"{job['id']} is {job['status']}")


@app.command()
def demo(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The job.")] = _DEMO,
    *,
    home: _Home,
    host: _Host = "127.0.0.1",
    port: _Port = 8000,
    as_json: _Json = False,
) -> None:
    """Serve, train a small BERT and watch it, in one command.

    Example: bigbatch demo --port 8001
    """
    from rich.console import Console

    from . import demo as demonstration

    document, _ = _read(file)
    settings = Settings(home=home, host=host, port=port)
    try:
        job = demonstration.run(document, settings, Console(), as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if job["status"] == "SUCCEEDED" else 1)


@app.command()
def doctor(*, home: _Home, host: _Host = "127.0.0.1", port: _Port = 8000, as_json: _Json = False) -> None:
    """Check that this machine has what bigbatch needs: 1 if something is missing.

    Example: bigbatch doctor
    """
    from .doctor import Mark, examine

    findings = list(examine(home, host, port))
    if as_json:
        _print_json([finding.as_dict() for finding in findings])
    else:
        from rich.console import Console

        from .tables import findings_table

        Console().print(findings_table(findings))
    raise typer.Exit(int(any(finding.mark is Mark.MISSING for finding in findings)))


def main() -> None:
    """Run the command line."""
    app(prog_name="bigbatch")


def _read(file: Path, name: str | None = None) -> "tuple[dict[str, Any], JobSpec]":
    """Read a job file and check it here, before anybody is asked; its relative paths are seen from its folder."""
    from workers.contract.documents import parse_spec, read_file

    document = read_file(file)
    if name is not None and isinstance(document, dict):
        document["name"] = name
    return document, parse_spec(document)


def _client(home: Path, url: str | None, token: str | None) -> "Client":
    from server.client.client import Client

    return Client(home, url, token)


def _watch(client: "Client", job_id: str, *, as_json: bool) -> None:
    from rich.console import Console

    from .progress import watch as follow

    try:
        job = follow(client, job_id, Console(), as_json=as_json)
    except KeyboardInterrupt:
        typer.echo(f"\nThe job goes on: bigbatch watch {job_id}, or bigbatch cancel {job_id}", err=True)
        raise typer.Exit(130) from None
    raise typer.Exit(0 if job["status"] == "SUCCEEDED" else 1)


def _report(problem: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(problem), err=True)
        return
    from rich.console import Console

    from .tables import print_problems

    console = Console(stderr=True)
    errors = problem.get("errors", [])
    text = problem.get("title") if errors else problem.get("detail") or problem.get("title")
    console.print(f"bigbatch: {text}", markup=False, highlight=False, soft_wrap=True)
    print_problems(errors, console)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value))


if __name__ == "__main__":
    main()
