import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from server.cli.doctor import Finding, Mark
from server.cli.output.tables import findings_table, job_table, jobs_table, print_warnings, report, screen
from tests.server.writer import Writer

JOB: Any = {
    "id": "1qx92r16q7na",
    "name": "n" * 90,
    "status": "RUNNING",
    "step": 3,
    "total_steps": 20,
    "created_at": (datetime.now(UTC) - timedelta(hours=3)).isoformat(),
    "checkpoint_path": "/data/" + "folder/" * 20 + "step-3",
    "error": None,
    "labels": {"team": "nlp"},
    "spec": {},
}


def _text(table: RenderableType, width: int = 10_000) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_job_is_a_row_with_its_progress_and_its_age() -> None:
    header, row = _text(jobs_table([JOB])).splitlines()
    assert header.split() == ["id", "name", "status", "step", "created"]
    assert row.split() == ["1qx92r16q7na", "n" * 90, "RUNNING", "3/20", "3", "h", "ago"]


def test_nothing_is_cut_in_a_narrow_terminal() -> None:
    assert "…" not in _text(jobs_table([JOB]), width=60)
    assert _text(jobs_table([JOB]), width=60).count("n") >= 90


def test_what_is_not_known_of_a_job_has_no_row() -> None:
    lines = _text(job_table(JOB)).splitlines()
    assert [line.split()[0] for line in lines] == [
        "id",
        "name",
        "status",
        "step",
        "total",
        "created",
        "checkpoint",
        "label",
    ]


def test_the_newest_held_out_figures_of_a_job_are_a_row() -> None:
    evaluation = Writer().evaluation(1200, nsp_accuracy=None)
    (row,) = [line for line in _text(job_table(JOB | {"evaluation": evaluation})).splitlines() if "held-out" in line]
    assert row.split(maxsplit=2)[:2] == ["held-out", "text"]
    assert row.split(maxsplit=2)[2].rstrip() == (
        "MLM loss 6.500 nats, accuracy 12.5%, perplexity 665 (80 rows of 64 tokens, after step 1,200)"
    )


def test_what_goes_to_a_file_is_as_wide_as_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    screen().print(job_table(JOB))
    assert str(JOB["checkpoint_path"]) in capsys.readouterr().out


def test_a_finding_shows_its_mark_as_a_word_and_its_remedy() -> None:
    findings = [Finding(Mark.GOOD, "Python", "3.11"), Finding(Mark.MISSING, "Ray", "not installed", "run `make setup`")]
    lines = [line.split() for line in _text(findings_table(findings)).splitlines()]
    assert lines == [["ok", "Python", "3.11"], ["missing", "Ray", "not", "installed:", "run", "`make", "setup`"]]


def test_an_error_goes_to_standard_error_field_by_field_or_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    error = {"field": "seed", "value": "-1", "problem": "is less than 0", "remedy": "write a value of at least 0"}
    problem = {"title": "the job is not valid", "errors": [error]}
    report(problem, as_json=False)
    assert capsys.readouterr() == (
        "",
        "bigbatch: the job is not valid\n  seed = -1\n      is less than 0; write a value of at least 0\n",
    )
    report(problem, as_json=True)
    assert json.loads(capsys.readouterr().err) == problem
    print_warnings([error])
    assert capsys.readouterr().err.startswith("bigbatch: warning\n  seed = -1\n")
