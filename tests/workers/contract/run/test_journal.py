import json
from pathlib import Path

import pytest

from workers.contract.records import RECORD, LogRecord
from workers.contract.run.folder import RunFolder
from workers.contract.run.journal import Lines
from workers.contract.run.lock import SupersededError

NULS = b"\0" * 4096 + b"\n"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder whose journal has five lines."""
    folder = RunFolder(tmp_path)
    write(folder, "1", "2", "3", "4", "5")
    return folder


def write(folder: RunFolder, *texts: str, attempt: int = 1) -> None:
    journal = folder.open_journal(attempt)
    for text in texts:
        journal.append(LogRecord(text=text))
    journal.close()


def contents(folder: RunFolder) -> list[tuple[int, str]]:
    """Number and text of each log line, number and kind of all else."""
    records = [RECORD.validate_json(line) for line in folder.journal.read_bytes().splitlines()]
    return [(record.seq, record.text if record.kind == "log" else record.kind) for record in records]


def break_line(folder: RunFolder, number: int, *put: bytes) -> None:
    """Put other lines in place of one."""
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    lines[number - 1 : number] = put
    folder.journal.write_bytes(b"".join(lines))


def test_a_line_torn_by_a_kill_is_cut_off_and_its_number_given_again(folder: RunFolder) -> None:
    folder.journal.write_bytes(folder.journal.read_bytes()[:-5])
    write(folder, "again")
    assert contents(folder)[3:] == [(4, "4"), (5, "again")]
    assert not folder.rejected.exists()


@pytest.mark.parametrize("garbage", [NULS, b"garbage\n", b"{}\n", b"\xff\xfe\n", b'{"seq":6,"kind":"log"}\n', b"\n"])
def test_a_last_line_that_cannot_be_read_is_kept_apart_and_an_alert_takes_its_number(
    garbage: bytes, folder: RunFolder
) -> None:
    with folder.journal.open("ab") as file:
        file.write(garbage)
    write(folder, "after", attempt=2)
    assert contents(folder)[4:] == [(5, "5"), (6, "alert"), (7, "after")]
    assert folder.rejected.read_bytes() == garbage


@pytest.mark.parametrize("garbage", [NULS, b"garbage\n"])
def test_a_line_in_the_middle_that_cannot_be_read_is_replaced_by_an_alert(garbage: bytes, folder: RunFolder) -> None:
    break_line(folder, 3, garbage)
    write(folder, "after")
    assert contents(folder) == [(1, "1"), (2, "2"), (3, "alert"), (4, "4"), (5, "5"), (6, "after")]
    assert folder.rejected.read_bytes() == garbage


@pytest.mark.parametrize("remains", [b"\0" * 300, b'{"seq":3,"time":"2026-', b"garbage"])
def test_a_record_behind_what_has_no_end_of_line_is_read(remains: bytes, folder: RunFolder) -> None:
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    folder.journal.write_bytes(b"".join([*lines[:2], remains, *lines[3:]]))
    write(folder)
    assert contents(folder) == [(1, "1"), (2, "2"), (3, "alert"), (4, "4"), (5, "5")]


def test_several_lines_that_power_loss_made_one_are_replaced_one_by_one(folder: RunFolder) -> None:
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    folder.journal.write_bytes(lines[0] + b"\0" * len(b"".join(lines[1:4])) + b"\n" + lines[4])
    write(folder)
    assert contents(folder) == [(1, "1"), (2, "alert"), (3, "alert"), (4, "alert"), (5, "5")]


def test_a_line_that_a_wrong_byte_broke_in_two_is_one_record(folder: RunFolder) -> None:
    line = folder.journal.read_bytes().splitlines()[2]
    break_line(folder, 3, line[:20] + b"\n", line[21:] + b"\n")
    write(folder)
    assert contents(folder) == [(1, "1"), (2, "2"), (3, "alert"), (4, "4"), (5, "5")]
    assert len(folder.rejected.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("wrong", [1, 2, 4, 93, 999_999_999])
def test_a_wrong_digit_in_a_number_costs_that_record_alone(wrong: int, folder: RunFolder) -> None:
    line = folder.journal.read_bytes().splitlines(keepends=True)[2]
    break_line(folder, 3, line.replace(b'"seq":3', b'"seq":%d' % wrong))
    write(folder)
    assert contents(folder) == [(1, "1"), (2, "2"), (3, "alert"), (4, "4"), (5, "5")]


def test_a_line_between_two_records_that_belongs_to_neither_is_kept_apart_and_told_of_at_the_end(
    folder: RunFolder,
) -> None:
    line = folder.journal.read_bytes().splitlines(keepends=True)[2]
    break_line(folder, 3, line, b"a stray line\n")
    write(folder)
    assert contents(folder) == [(1, "1"), (2, "2"), (3, "3"), (4, "4"), (5, "5"), (6, "alert")]
    assert folder.rejected.read_bytes() == b"a stray line\n"


def test_lines_that_somebody_took_out_are_replaced_by_alerts(folder: RunFolder) -> None:
    break_line(folder, 2)
    break_line(folder, 2)
    write(folder)
    assert contents(folder) == [(1, "1"), (2, "alert"), (3, "alert"), (4, "4"), (5, "5")]


@pytest.mark.parametrize("torn", [b"", b'{"seq":6,"ti'])
def test_records_without_an_end_of_line_between_them_get_one(torn: bytes, folder: RunFolder) -> None:
    lines = folder.journal.read_bytes().splitlines()
    folder.journal.write_bytes(b"".join(lines[:3]) + b"\n" + b"\n".join(lines[3:]) + b"\n" + torn)
    write(folder, "after", attempt=2)
    assert contents(folder) == [*((number, str(number)) for number in range(1, 6)), (6, "after")]


def test_two_wrong_numbers_that_follow_each_other_do_not_fill_the_disk_with_alerts(folder: RunFolder) -> None:
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    wrong = b"".join(lines[3:]).replace(b'"seq":', b'"seq":1000000000')
    folder.journal.write_bytes(b"".join(lines[:3]) + wrong)
    write(folder, "after", attempt=2)
    assert contents(folder)[2:] == [(3, "3"), (4, "alert"), (5, "after")]
    assert folder.rejected.read_bytes() == wrong


def test_a_journal_that_was_mended_is_not_mended_again(folder: RunFolder) -> None:
    break_line(folder, 3, b"garbage\n")
    write(folder)
    before = folder.journal.read_bytes()
    write(folder)
    assert folder.journal.read_bytes() == before
    assert folder.rejected.read_bytes() == b"garbage\n"


def test_a_refused_record_is_replaced_while_others_are_written(folder: RunFolder) -> None:
    journal = folder.open_journal(1)
    journal.append(LogRecord(text="6"))
    assert len(journal.after(0)) == 6
    journal.reject(2, "it is refused")
    journal.append(LogRecord(text="7"))
    assert [json.loads(line)["kind"] for line in journal.after(0)] == ["log", "alert"] + ["log"] * 5
    journal.close()
    assert contents(folder)[:2] == [(1, "1"), (2, "alert")]
    assert json.loads(folder.rejected.read_text())["text"] == "2"


def test_an_attempt_that_was_followed_by_another_writes_no_further(folder: RunFolder) -> None:
    old = folder.open_journal(1)
    newer = RunFolder(folder.path)
    newer.take_over(2)
    with pytest.raises(SupersededError, match="attempt 1 is over"):
        old.append(LogRecord(text="too late"))
    with pytest.raises(SupersededError):
        old.reject(1, "too late")
    with pytest.raises(SupersededError):
        folder.open_journal(1)
    old.close()
    write(folder, "6", attempt=2)
    assert contents(folder)[4:] == [(5, "5"), (6, "6")]
    newer.lock.release()


def test_a_carriage_return_between_two_fields_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq":1,\r"a":1}\r\n{"seq":2}\n')
    lines = Lines(path.open("rb"))
    assert lines.after(0) == [b'{"seq":1,\r"a":1}\r', b'{"seq":2}']
    lines.close()


def test_lines_that_are_not_finished_are_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq":1}\n{"seq":2}\n{"se')
    lines = Lines(path.open("rb"))
    assert lines.after(0) == [b'{"seq":1}', b'{"seq":2}']
    assert lines.after(2) == []
    with path.open("ab") as file:
        file.write(b'q":3}\n')
    assert lines.after(2) == [b'{"seq":3}']
    assert lines.after(1) == [b'{"seq":2}', b'{"seq":3}']
    lines.close()
