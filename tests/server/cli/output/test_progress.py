import io
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import pytest
from rich.console import Console

from server.cli.output.progress import Course, watch
from server.client import Client
from server.client.events import Event
from tests.server.writer import Writer
from tests.serving import Served, run_records, status

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def _step(number: int, **changes: Any) -> Event:
    time = (BEGIN + timedelta(seconds=2 * number)).isoformat()
    record = {
        "step": number,
        "time": time,
        "loss": 7.0,
        "tokens_per_s": 1234.5,
        "mlm_loss": 6.0,
        "trust_ratio_median": 0.3,
    }
    return Event("step", number, record | changes)


@pytest.fixture
def course() -> Course:
    return Course(100)


def test_the_time_left_is_what_the_server_says(course: Course) -> None:
    course.take(_step(1))
    assert "left" not in course.figures()
    course.take(_step(2, seconds_left=3725.4))
    assert course.figures().endswith("1:02:05 left")


def test_the_two_losses_are_named(course: Course) -> None:
    course.take(_step(1))
    assert "loss 7.000 (MLM 6.000)" in course.figures()


def test_the_past_of_a_job_is_shown_in_the_order_in_which_it_happened(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    job = served.submit()
    served.push(job["id"], run_records(3)[:-1])
    served.http.post(f"/v1/jobs/{job['id']}/cancel")
    served.push(job["id"], [status(6, "CANCELLED")])
    with Client(served.settings.home, served.url) as client:
        watch(client, job["id"], Console(file=io.StringIO()))
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert [word for word, _ in groupby(shown)] == ["RUNNING", "CANCELLED"]


def test_a_step_without_a_finite_loss_has_no_number(course: Course) -> None:
    course.take(_step(1, loss=None, trust_ratio_median=None))
    assert "loss -  " in course.figures().replace("(MLM 6.000)", "")
    assert "ratio -" in course.figures()


def test_a_terminal_shows_a_bar_and_a_summary(served: Served) -> None:
    job = served.submit()
    served.push(job["id"], run_records(20))
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with Client(served.settings.home, served.url) as client:
        ended = watch(client, job["id"], screen)
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert ended["status"] == "SUCCEEDED"
    assert "20/20" in shown
    assert "━━━" in shown
    assert "1,000 tokens/s" in shown
    assert shown.rstrip().endswith("(guessing by word frequency alone: 6.000)")


def test_held_out_figures_are_told_as_they_come_and_with_the_tokens_at_the_end(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    job, writer, screen = served.submit(), Writer(), Console(file=io.StringIO(), width=200)
    first, second, again = (writer.step(step) | {"tokens": 700} for step in (1, 2, 2))
    records = [*writer.begin(), first, second, again, writer.evaluation(2)]
    records.append(writer.end("SUCCEEDED", export_path="/runs/a/export"))
    for seq, record in enumerate(records, 1):
        record["seq"] = seq
    served.push(job["id"], records)
    with Client(served.settings.home, served.url) as client:
        watch(client, job["id"], screen)
    figures = "MLM loss 6.500 nats, accuracy 12.5%, perplexity 665, NSP accuracy 50.0%"
    assert f"held-out text: {figures} (80 rows of 64 tokens, after step 2)\n" in capsys.readouterr().out
    assert isinstance(screen.file, io.StringIO)
    summary = dict(line.split(maxsplit=1) for line in screen.file.getvalue().splitlines())
    assert summary["held-out"].startswith(figures)
    assert (summary["tokens"], summary["model"]) == ("1,400", "/runs/a/export")


def test_an_alert_is_a_sentence_and_its_detail_another(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    job = served.submit()
    alert = {"seq": 2, "time": BEGIN.isoformat(), "kind": "alert", "level": "warning", "title": "The text is short"}
    told = [status(1, "RUNNING"), alert, alert | {"seq": 3, "detail": "Give more."}, status(4, "FAILED")]
    served.push(job["id"], told)
    with Client(served.settings.home, served.url) as client:
        watch(client, job["id"], Console(file=io.StringIO()))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("warning")] == [
        "warning: The text is short.",
        "warning: The text is short. Give more.",
    ]


def test_while_its_text_is_prepared_a_job_says_how_far_that_has_come(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    job = served.submit()
    log = {"kind": "log", "time": BEGIN.isoformat()}
    served.push(job["id"], [log | {"seq": 1, "text": "text: tokenizing", "done": 0.4}, log | {"seq": 2, "text": "hm"}])
    served.http.post(f"/v1/jobs/{job['id']}/cancel")
    with Client(served.settings.home, served.url) as client:
        watch(client, job["id"], Console(file=io.StringIO()))
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if "text" in line or "hm" in line] == [" 40%  text: tokenizing"]
