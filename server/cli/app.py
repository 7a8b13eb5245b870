"""The command `bigbatch`. Heavy libraries are imported by the commands that need them, so that it starts fast."""

import io
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .commands import backup, data, jobs, plan, runs, server, tokens, verbs


class _Commands(TyperGroup):
    """Turns the errors that a user can cause into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        from pydantic import ValidationError

        from server.client.errors import ClientError
        from server.errors import ServerError
        from workers.contract.problems import SpecError, explain_option
        from workers.contract.run.remote import StorageError

        from .output.tables import report

        try:
            return super().invoke(ctx)
        except SpecError as error:
            problem = {"title": "the job is not valid", "errors": [one.as_dict() for one in error.problems]}
            report(problem, as_json=ctx.meta.get("json", False))
            raise typer.Exit(2) from None
        except StorageError as error:
            report({"title": "the storage cannot be used", "detail": str(error)}, as_json=ctx.meta.get("json", False))
            raise typer.Exit(2) from None
        except ServerError as error:  # of commands that work on a home themselves
            report({"title": error.title, "detail": error.detail}, as_json=ctx.meta.get("json", False))
            raise typer.Exit(2) from None
        except ClientError as error:
            report(error.as_dict(), as_json=ctx.meta.get("json", False))
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if error.filename is None:  # not of a file: the other end of a pipe has closed it, for example
                raise
            remedy = "check the path, the free space there, and who may read and write it"
            problem = {"title": "a file cannot be used", "detail": f"{error.filename}: {error.strerror}: {remedy}"}
            report(problem, as_json=ctx.meta.get("json", False))
            raise typer.Exit(2) from None
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                error.message = explain_option(error.__cause__)
            raise


app = typer.Typer(
    cls=_Commands,
    help="Distributed large-batch BERT pre-training with LAMB.",
    epilog="Begin with: bigbatch doctor, then bigbatch demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"bigbatch {version('bigbatch')}")
        raise typer.Exit


@app.callback()
def _bigbatch(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for command in (
    server.serve,
    server.demo,
    jobs.submit,
    plan.plan,
    jobs.clone,
    jobs.sweep,
    jobs.jobs,
    jobs.show,
    jobs.watch,
    verbs.logs,
    verbs.pause,
    verbs.resume,
    verbs.checkpoint,
    verbs.cancel,
    verbs.retry,
    verbs.checkpoints,
    verbs.priority,
    verbs.label,
    verbs.delete,
    runs.export,
    runs.probe,
    tokens.audit,
    backup.backup,
    backup.restore,
    server.doctor,
):
    app.command()(command)

# Its arguments are read, and its help is printed, by the program that it becomes.
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
app.command(context_settings=_PASSED_ON)(runs.train)
data.data.command(context_settings=_PASSED_ON)(data.prepare)
data.data.callback()(data.group)
app.add_typer(data.data, name="data")
tokens.token.callback()(tokens.group)
app.add_typer(tokens.token, name="token")


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal may not have every character that a name or a message has; that must not end a command.
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="bigbatch")


if __name__ == "__main__":
    main()
