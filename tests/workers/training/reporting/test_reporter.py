import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.control_plane import ControlPlane
from workers.contract.push import Command
from workers.contract.records import RECORD, LogRecord, Record
from workers.contract.run.folder import RunFolder
from workers.training.reporting.reporter import Reporter


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path)
    yield plane
    plane.close()


def seqs(run_dir: Path) -> list[int]:
    lines = (run_dir / "events.jsonl").read_text().splitlines()
    return [RECORD.validate_json(line).seq for line in lines]


def test_records_are_numbered_without_gaps_over_attempts(tmp_path: Path) -> None:
    for _ in range(3):
        reporter = Reporter(RunFolder(tmp_path))
        reporter.emit(LogRecord(text="one"))
        reporter.emit(LogRecord(text="two"))
        reporter.close()
    assert seqs(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_without_a_control_plane_records_are_written_all_the_same(tmp_path: Path) -> None:
    seen: list[Record] = []
    reporter = Reporter(RunFolder(tmp_path), on_record=seen.append)
    reporter.emit(LogRecord(text="alone"))
    reporter.close()
    assert [record.seq for record in seen] == seqs(tmp_path) == [1]


def test_every_record_arrives_once_and_in_order(tmp_path: Path, plane: ControlPlane) -> None:
    reporter = Reporter(RunFolder(tmp_path))
    for number in range(2_000):
        reporter.emit(LogRecord(text=f"line {number} " + "x" * 1_000))  # more than one push holds
    reporter.close()
    assert [record["text"].split()[1] for record in plane.records.values()] == [str(i) for i in range(2_000)]


def test_pushes_that_succeed_leave_no_line_in_the_log(
    tmp_path: Path, plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)  # as in a worker of Ray
    reporter = Reporter(RunFolder(tmp_path))
    reporter.emit(LogRecord(text="pushed"))
    reporter.close()
    assert plane.pushes
    assert caplog.text == ""


def test_a_control_plane_that_is_away_gets_the_rest_when_it_is_back(tmp_path: Path, plane: ControlPlane) -> None:
    reporter = Reporter(RunFolder(tmp_path))
    reporter.emit(LogRecord(text="before"))
    plane.wait_for(1)
    plane.fails, pushes = True, plane.pushes
    reporter.emit(LogRecord(text="meanwhile"))
    plane.wait_for_pushes(pushes + 2)
    plane.fails = False
    plane.wait_for(2)
    reporter.close()
    assert [record["text"] for record in plane.records.values()] == ["before", "meanwhile"]


def test_a_control_plane_that_lost_records_gets_them_again(tmp_path: Path, plane: ControlPlane) -> None:
    reporter = Reporter(RunFolder(tmp_path))
    for number in range(5):
        reporter.emit(LogRecord(text=str(number)))
    plane.wait_for(5)
    with plane.pushed:
        plane.records = {1: plane.records[1]}
    reporter.emit(LogRecord(text="5"))
    plane.wait_for(6)
    reporter.close()


def test_the_reply_brings_the_command_back(tmp_path: Path, plane: ControlPlane) -> None:
    plane.command = Command.STOP
    reporter = Reporter(RunFolder(tmp_path))
    reporter.emit(LogRecord(text="hello"))
    reporter.close()
    assert reporter.command is Command.STOP


def test_an_unreachable_control_plane_does_not_stop_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "control.json").write_text('{"url": "http://127.0.0.1:9/events", "token": "secret"}')
    reporter = Reporter(RunFolder(tmp_path))
    reporter.emit(LogRecord(text="alone"))
    reporter.close(wait_s=0.6)
    assert seqs(tmp_path) == [1]
    assert "training goes on" in caplog.text


def test_a_record_that_is_refused_by_number_is_replaced_and_the_others_arrive(
    tmp_path: Path, plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.refuses = {3}
    reporter = Reporter(RunFolder(tmp_path))
    for number in range(1, 6):
        reporter.emit(LogRecord(text=str(number)))
    reporter.close()
    kinds = [record["kind"] for record in plane.records.values()]
    assert kinds == ["log", "log", "alert", "log", "log"]
    assert "422" in plane.records[3]["detail"]
    assert seqs(tmp_path) == [1, 2, 3, 4, 5]
    assert '"kind":"alert"' in (tmp_path / "events.jsonl").read_text().splitlines()[2]
    (rejected,) = (tmp_path / "events.rejected").read_text().splitlines()
    assert json.loads(rejected)["text"] == "3"
    assert "record 3 is replaced by an alert" in caplog.text


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_that_names_no_record_is_narrowed_down_and_no_push_is_repeated_unchanged(
    status: int, tmp_path: Path, plane: ControlPlane
) -> None:
    plane.refuses, plane.refusal, plane.names_record = {4}, status, False
    plane.fails = True
    reporter = Reporter(RunFolder(tmp_path))
    for number in range(1, 7):
        reporter.emit(LogRecord(text=str(number)))
    plane.wait_for_pushes(1)
    plane.fails = False  # all six come in one push
    reporter.close()
    assert [record["kind"] for record in plane.records.values()] == ["log"] * 3 + ["alert"] + ["log"] * 2
    assert len(plane.refused) == len(set(plane.refused)) == 2


def test_where_even_the_alert_is_refused_pushing_ends_and_training_goes_on(
    tmp_path: Path, plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.refuses, plane.refuses_alerts = {1}, True
    reporter = Reporter(RunFolder(tmp_path))
    reporter.emit(LogRecord(text="1"))
    reporter.close()
    assert len(plane.refused) == len(set(plane.refused)) == 2
    assert "no longer pushed" in caplog.text
    assert seqs(tmp_path) == [1]


def test_every_push_names_its_attempt(tmp_path: Path, plane: ControlPlane) -> None:
    reporter = Reporter(RunFolder(tmp_path), 7)
    reporter.emit(LogRecord(text="hello"))
    reporter.close()
    assert plane.attempts == {7}
