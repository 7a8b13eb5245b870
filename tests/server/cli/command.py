"""The command line as tests call it."""

from pathlib import Path

from typer.testing import CliRunner, Result

from server.cli.app import app

ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""Variables with which Python knows no other characters, neither of the terminal nor of files and their names."""


def run_bigbatch(*arguments: str | Path, answers: str = "") -> Result:
    """Run a command in this process; `answers` are what is typed in."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="bigbatch", input=answers)
