"""The command line as tests call it."""

from pathlib import Path

from typer.testing import CliRunner, Result

from server.cli.app import app


def run_bigbatch(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="bigbatch")
