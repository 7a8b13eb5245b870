"""A job's progress in a terminal: a bar, plain lines where there is no terminal, or one JSON record per line."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from server.client import Client
from server.client.errors import JsonObject, UnreachableError
from server.client.events import Event
from server.client.results import Job
from workers.contract.problems import counted
from workers.contract.records import EvaluationRecord

LINE_EVERY_S = 5.0


@dataclass
class Course:
    """The state of a job, summed up from its events."""

    total: int
    status: str = ""
    """As the events told it so far, which begin with the job's past; empty before the first."""
    step: int = 0
    last: JsonObject = field(default_factory=dict)
    """The newest step's record."""
    tokens: dict[int, int] = field(default_factory=dict)
    """Of each step; of one that was computed again, those of the last time."""

    def take(self, event: Event) -> None:
        """Add one event."""
        data = event.data
        if event.name == "status":
            self.status = data["status"]
        elif event.name == "step":
            self.step, self.last = data["step"], data
            self.tokens[self.step] = data.get("tokens") or 0

    def figures(self) -> str:
        """Loss, throughput, trust ratio and time left, for one line of a terminal."""
        rate, left = self.last.get("tokens_per_s"), self.last.get("seconds_left")
        parts = [
            f"loss {_number(self.last.get('loss'), '.3f')} (MLM {_number(self.last.get('mlm_loss'), '.3f')})",
            f"{_number(rate, '7,.0f')} tokens/s",
            f"trust ratio {_number(self.last.get('trust_ratio_median'), '.3f')}",
            f"{_duration(timedelta(seconds=left))} left" if left is not None else "",
        ]
        return "  ".join(part for part in parts if part) if self.last else ""


class _Display(Protocol):
    def show(self, course: Course, event: Event) -> None: ...
    def say(self, text: str) -> None: ...


class _Bar:
    def __init__(self, progress: Progress, course: Course) -> None:
        self._progress = progress
        self._task = progress.add_task(course.status, total=course.total, completed=course.step, figures="")

    def show(self, course: Course, event: Event) -> None:
        if said := _said(event):
            self.say(said)
        self._progress.update(
            self._task, description=course.status, completed=course.step, total=course.total, figures=course.figures()
        )

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


class _Lines:
    def __init__(self) -> None:
        self._printed = float("-inf")
        self._status = ""

    def show(self, course: Course, event: Event) -> None:
        if said := _said(event):
            self.say(said)
        is_due = time.monotonic() - self._printed >= LINE_EVERY_S
        if course.status != self._status or (event.name == "step" and (is_due or course.step == course.total)):
            self._printed, self._status = time.monotonic(), course.status
            figures = course.figures() if event.name == "step" else ""
            width = len(str(course.total))
            self.say(f"{course.status:<9}  step {course.step:>{width}}/{course.total}  {figures}".rstrip())

    def say(self, text: str) -> None:
        print(text, flush=True)  # noqa: T201 -- this is the output


class _Records:
    def show(self, course: Course, event: Event) -> None:  # noqa: ARG002 -- the other displays need the course
        if event.name != "end":
            print(json.dumps({"kind": event.name} | event.data), flush=True)  # noqa: T201 -- this is the output

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 -- standard output holds records alone


def watch(client: Client, job_id: str, console: Console, *, as_json: bool = False) -> Job:
    """Show a job's progress until it ends; return it as it ended."""
    course = Course(client.job(job_id)["total_steps"])
    with _display(course, console, as_json=as_json) as display:

        def on_lost(error: UnreachableError) -> None:
            display.say(
                f"The server at {error.url} does not answer ({error.reason}). The job is not affected; waiting ..."
            )

        for event in client.follow(job_id, on_lost):
            course.take(event)
            display.show(course, event)
    job = client.job(job_id)
    if not as_json:
        print_summary(job, course, console)
    return job


def print_summary(job: Job, course: Course, console: Console) -> None:
    """Say in a few lines how the job ended."""
    rows = [("", f"{job['status']} after {job['step']} of {counted(job['total_steps'], 'step')}{_elapsed(job)}")]
    if error := job.get("error"):
        rows.append(("error", error))
    loss, mlm_loss = course.last.get("loss"), course.last.get("mlm_loss")
    if loss is not None:
        rows.append(("loss", f"{loss:.3f} nats"))
    if mlm_loss is not None:
        entropy = job.get("unigram_entropy_nats")
        by_frequency = "" if entropy is None else f" (guessing by word frequency alone: {entropy:.3f})"
        rows.append(("MLM loss", f"{mlm_loss:.3f} nats on masked words{by_frequency}"))
    if job.get("evaluation"):
        rows.append(("held-out", EvaluationRecord.model_validate(job["evaluation"]).figures))
    if tokens := sum(course.tokens.values()):
        rows.append(("tokens", f"{tokens:,}"))
    if checkpoint := job.get("checkpoint_path"):
        rows.append(("checkpoint", checkpoint))
    if model := job.get("export_path"):
        rows.append(("model", model))
    for name, text in rows:
        console.print(f"{name:<12}{text}" if name else text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _bar(course: Course, console: Console) -> Iterator[_Bar]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        yield _Bar(progress, course)


@contextmanager
def _plain(display: _Display) -> Iterator[_Display]:
    yield display


def _display(course: Course, console: Console, *, as_json: bool) -> AbstractContextManager[_Display]:
    if as_json:
        return _plain(_Records())
    return _bar(course, console) if console.is_terminal else _plain(_Lines())


def _said(event: Event) -> str:
    """What is told of an event in a line of its own; empty for most."""
    if event.name == "evaluation":
        return f"held-out text: {EvaluationRecord.model_validate(event.data).figures}"
    if event.name == "log" and event.data.get("done") is not None:  # its text is prepared before it begins to train
        return f"{event.data['done']:4.0%}  {event.data['text']}"
    return _alert(event) if event.name == "alert" else ""


def _alert(event: Event) -> str:
    title, detail = event.data["title"].rstrip("."), event.data.get("detail", "")
    return f"{event.data['level']}: {title}." + (f" {detail}" if detail else "")


def _elapsed(job: Job) -> str:
    begun, ended = job.get("started_at"), job.get("finished_at")
    if not begun or not ended:
        return ""
    return f" in {_duration(datetime.fromisoformat(ended) - datetime.fromisoformat(begun))}"


def _number(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def _duration(time_span: timedelta) -> str:
    minutes, seconds = divmod(round(time_span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
