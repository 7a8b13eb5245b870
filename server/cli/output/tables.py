"""What the command line prints of jobs, checks and faults."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.cli.doctor import Finding, Mark
from server.client.results import Deed, Job, QueuePlace, StoredCheckpoint, Token
from workers.contract.records import EvaluationRecord

_COLOURS = {
    "RUNNING": "cyan",
    "SUCCEEDED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
    Mark.GOOD: "green",
    Mark.WARNING: "yellow",
    Mark.MISSING: "red",
}


_UNBOUNDED = 10_000


def screen(*, stderr: bool = False) -> Console:
    """Return where tables are printed; what goes to a file or to another program is not cut at a width."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_UNBOUNDED)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    typer.echo(json.dumps(value))


def report(problem: Mapping[str, Any], *, as_json: bool) -> None:
    """Print an error in the shape of a problem document to standard error."""
    if as_json:
        typer.echo(json.dumps(problem), err=True)
        return
    errors = problem.get("errors", [])
    text = problem.get("title") if errors else problem.get("detail") or problem.get("title")
    typer.echo(f"bigbatch: {text}", err=True)
    print_problems(errors)


def print_problems(problems: Iterable[Mapping[str, Any]]) -> None:
    """Print what is wrong with a document to standard error: field and value, the problem, the remedy."""
    for problem in problems:
        typer.echo(f"  {problem['field']} = {problem['value']}", err=True)
        typer.echo(f"      {problem['problem']}; {problem['remedy']}", err=True)


def print_warnings(problems: Iterable[Mapping[str, Any]]) -> None:
    """Print what may be wrong with a job that was accepted."""
    for problem in problems:
        typer.echo("bigbatch: warning", err=True)
        print_problems([problem])


def jobs_table(jobs: Iterable[Job]) -> Table:
    """Lay out jobs, one per row."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("id", "name", "status", "step", "created"):
        table.add_column(name, overflow="fold")
    for job in jobs:
        progress = f"{job['step']}/{job['total_steps']}"
        table.add_row(job["id"], job["name"], _coloured(job["status"]), progress, _ago(job["created_at"]))
    return table


def checkpoints_table(checkpoints: Iterable[StoredCheckpoint]) -> Table:
    """Lay out checkpoints, one per row."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("step", "attempt", "size", "held-out loss", "place"):
        table.add_column(name, overflow="fold")
    for each in checkpoints:
        size = "-" if each["size_bytes"] is None else f"{each['size_bytes'] / 1e6:,.1f} MB"
        loss = each["evaluation"] and each["evaluation"]["mlm_loss"]
        note = " (the loss was not in order)" * (each["is_sound"] is False) + " (damaged)" * bool(each["problem"])
        place = f"{each['place']}{note}"
        table.add_row(f"{each['step']:,}", str(each["attempt"]), size, "-" if loss is None else f"{loss:.3f}", place)
    return table


def job_table(job: Job, place: QueuePlace | None = None) -> Table:
    """Lay out what is known of one job, one field per row, without its specification.

    Args:
        job: the job.
        place: of one that waits, its place in the queue.
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in job.items():
        if name == "evaluation" and value is not None:
            table.add_row(Text("held-out text", "dim"), Text(EvaluationRecord.model_validate(value).figures))
        elif name not in ("spec", "labels", "text_key") and value is not None:
            table.add_row(Text(name.replace("_", " "), "dim"), _coloured(str(value)))
    if place is not None and place["position"] is not None:
        table.add_row(Text("place in the queue", "dim"), Text(_place(place)))
    for label, value in job["labels"].items():
        table.add_row(Text(f"label {label}", "dim"), Text(value))
    return table


def _place(place: QueuePlace) -> str:
    when = "" if place["starts_in_s"] is None else f", may start in about {_span(place['starts_in_s'])}"
    return f"{place['position']} of {place['waiting']}{when}"


def findings_table(findings: Iterable[Finding]) -> Table:
    """Lay out checks, one per row, with what to do where something is amiss."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        found = f"{finding.found}: {finding.remedy}" if finding.remedy else finding.found
        table.add_row(_coloured(finding.mark), Text(finding.what), Text(found))
    return table


def tokens_table(tokens: Iterable[Token]) -> Table:
    """Lay out tokens, one per row."""
    rows = ([each["id"], each["owner"], each["role"], each["created_by"], each["expires_at"][:10]] for each in tokens)
    return _table(("id", "owner", "role", "made by", "until"), rows)


def deeds_table(deeds: Iterable[Deed]) -> Table:
    """Lay out entries of the audit log, one per row."""
    rows = (
        [
            each["time"][:19].replace("T", " "),
            each["caller"],
            each["role"],
            each["address"] or "",
            each["action"],
            str(each["status"]),
        ]
        for each in deeds
    )
    return _table(("time (UTC)", "who", "role", "from", "what", "answered"), rows)


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _coloured(text: str) -> Text:
    return Text(text, _COLOURS.get(text, ""))


def _ago(moment: str) -> str:
    return f"{_span((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())} ago"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds) // size} {unit}"
    return f"{max(int(seconds), 0)} s"
