"""The command that says what a job will take: plan."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.options import Changes, File, Home, Json

if TYPE_CHECKING:
    from server.settings import Settings
    from workers.planning.rate import Rate

_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def read_bytes(text: str) -> int:
    """Read a size such as 80GB or 24 GiB.

    Raises:
        BadParameter: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(\w+)", text.strip())
    if match is None or match[2] not in _UNITS:
        raise typer.BadParameter(f"{text!r} is not a size; write a number and one of {', '.join(_UNITS)}: 80GB")
    return int(float(match[1]) * _UNITS[match[2]])


def plan(
    file: File,
    *,
    changes: Changes = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of workers.", show_default="the most that the job allows")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of a worker's device, such as 80GB: does the job fit?")
    ] = None,
    tokens_per_s: Annotated[
        float | None, typer.Option("--tokens-per-s", min=1e-9, help="Tokens a second of all workers together.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="RUN_OR_ID", help="A run folder or job of this machine, from which the rate is taken."),
    ] = None,
    as_json: Json = False,
    home: Home,
) -> None:
    """Say what a job will take: steps, memory, traffic, disk and hours. Nothing is started.

    It ends with 1 where the job does not fit into --memory.

    Examples:
    bigbatch plan configs/bert-base.yaml --memory 80GB

    bigbatch plan configs/demo.yaml --workers 1 --like runs/demo

    bigbatch plan configs/bert-large-76min.yaml --set phases[0].micro_batch_size=16 --tokens-per-s 1.2e6
    """
    from dataclasses import asdict

    from server.cli.files import read_job
    from server.cli.output.plans import print_plan
    from server.cli.output.tables import print_json
    from server.settings import Settings
    from workers.planning.plan import plan as make_plan
    from workers.planning.text import prepared

    _, spec = read_job(file, changes=changes or ())
    settings = Settings(home)
    found = make_plan(
        spec,
        workers=workers,
        memory_bytes=None if memory is None else read_bytes(memory),
        prepared=prepared(spec.data, settings.data),
        rates=_rates(tokens_per_s, like, settings),
    )
    if as_json:
        print_json(asdict(found))
    else:
        print_plan(found)
    if found.fits is False:
        raise typer.Exit(1)


def _rates(tokens_per_s: float | None, like: str | None, settings: "Settings") -> "dict[int, Rate] | Rate | None":
    from server.cli.local import find_run
    from workers.planning.rate import Rate, measured

    if tokens_per_s is not None and like is not None:
        raise typer.BadParameter("--tokens-per-s gives the rate already: leave one of the two out", param_hint="--like")
    if like is not None:
        return measured(find_run(like, settings))
    return None if tokens_per_s is None else Rate(tokens_per_s, None)
