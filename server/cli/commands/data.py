"""The commands about text on this machine: data prepare."""

import typer

data = typer.Typer(no_args_is_help=True)


def group() -> None:
    """Prepare text for training."""


def prepare(context: typer.Context) -> None:
    """Turn the text of a job into a vocabulary and token shards, once for all jobs with the same text."""
    from server.cli.local import prepare as become_preparation

    become_preparation(context.args)
