from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.control_plane import ControlPlane
from workers.contract.journal import Journal, Lines
from workers.contract.push import Command
from workers.contract.records import RECORD, Record
from workers.contract.run_folder import RunFolder
from workers.training.reporter import Reporter


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
        reporter.emit("log", text="one")
        reporter.emit("log", text="two")
        reporter.close()
    assert seqs(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_line_torn_by_a_kill_is_cut_off_and_its_number_given_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.append("log", text="whole")
    journal.append("log", text="torn")
    journal.close()
    whole = (tmp_path / "events.jsonl").read_bytes()
    (tmp_path / "events.jsonl").write_bytes(whole[:-5])
    again = Journal(tmp_path / "events.jsonl")
    again.append("log", text="again")
    again.close()
    assert seqs(tmp_path) == [1, 2]


def test_without_a_control_plane_records_are_written_all_the_same(tmp_path: Path) -> None:
    seen: list[Record] = []
    reporter = Reporter(RunFolder(tmp_path), on_record=seen.append)
    reporter.emit("log", text="alone")
    reporter.close()
    assert [record.seq for record in seen] == seqs(tmp_path) == [1]


def test_every_record_arrives_once_and_in_order(tmp_path: Path, plane: ControlPlane) -> None:
    reporter = Reporter(RunFolder(tmp_path))
    for number in range(2_000):
        reporter.emit("log", text=f"line {number} " + "x" * 1_000)  # more than one push holds
    reporter.close()
    assert [record["text"].split()[1] for record in plane.records.values()] == [str(i) for i in range(2_000)]


def test_a_control_plane_that_is_away_gets_the_rest_when_it_is_back(tmp_path: Path, plane: ControlPlane) -> None:
    reporter = Reporter(RunFolder(tmp_path))
    reporter.emit("log", text="before")
    plane.wait_for(1)
    plane.fails, pushes = True, plane.pushes
    reporter.emit("log", text="meanwhile")
    plane.wait_for_pushes(pushes + 2)
    plane.fails = False
    plane.wait_for(2)
    reporter.close()
    assert [record["text"] for record in plane.records.values()] == ["before", "meanwhile"]


def test_a_control_plane_that_lost_records_gets_them_again(tmp_path: Path, plane: ControlPlane) -> None:
    reporter = Reporter(RunFolder(tmp_path))
    for number in range(5):
        reporter.emit("log", text=str(number))
    plane.wait_for(5)
    with plane.pushed:
        plane.records = {1: plane.records[1]}
    reporter.emit("log", text="5")
    plane.wait_for(6)
    reporter.close()


def test_the_reply_brings_the_command_back(tmp_path: Path, plane: ControlPlane) -> None:
    plane.command = Command.STOP
    reporter = Reporter(RunFolder(tmp_path))
    reporter.emit("log", text="hello")
    reporter.close()
    assert reporter.command is Command.STOP


def test_an_unreachable_control_plane_does_not_stop_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "control.json").write_text('{"url": "http://127.0.0.1:9/events", "token": "secret"}')
    reporter = Reporter(RunFolder(tmp_path))
    reporter.emit("log", text="alone")
    reporter.close(wait_s=0.6)
    assert seqs(tmp_path) == [1]
    assert "training goes on" in caplog.text


def test_lines_that_are_not_finished_are_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq":1}\n{"seq":2}\n{"se')
    lines = Lines(path)
    assert lines.after(0) == [b'{"seq":1}', b'{"seq":2}']
    assert lines.after(2) == []
    with path.open("ab") as file:
        file.write(b'q":3}\n')
    assert lines.after(2) == [b'{"seq":3}']
    assert lines.after(1) == [b'{"seq":2}', b'{"seq":3}']
