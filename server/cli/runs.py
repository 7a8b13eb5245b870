"""The commands about runs on this machine, without a server: train."""

import typer


def train(context: typer.Context) -> None:
    """Train on this machine, without a server or Ray."""
    from .local import train as become_training

    context.meta["json"] = "--json" in context.args  # read again when an error is reported
    become_training(context.args)
