import json
from pathlib import Path

import pytest

from tests.workers.contract.run.journals import contents, write
from workers.contract.records import LogRecord
from workers.contract.run.folder import RunFolder
from workers.contract.run.journal import Lines
from workers.contract.run.lock import SupersededError

NULS = b"\0" * 4096 + b"\n"


def test_a_line_torn_by_a_kill_is_cut_off_and_its_number_given_again(folder: RunFolder) -> None:
    folder.journal.write_bytes(folder.journal.read_bytes()[:-5])
    write(folder, "again")
    assert contents(folder)[3:] == [(4, "4"), (5, "again")]
    assert not folder.rejected.exists()


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


def test_what_another_process_writes_into_it_is_put_aside_and_costs_no_record(folder: RunFolder) -> None:
    journal = folder.open_journal(1)
    foreign = b'no record \x00\xff {"seq":\n'
    with folder.journal.open("ab") as file:
        file.write(foreign)
    assert len(journal.after(0)) == 5
    assert journal.after(5) == []
    assert journal.append(LogRecord(text="6")).seq == 6
    assert [json.loads(line)["kind"] for line in journal.after(5)] == ["log", "alert"]
    assert journal.append(LogRecord(text="8")).seq == 8
    journal.close()
    assert contents(folder)[4:] == [(5, "5"), (6, "6"), (7, "alert"), (8, "8")]
    assert folder.rejected.read_bytes() == foreign
    assert f"Another process wrote {len(foreign)} bytes" in folder.journal.read_text()


def test_what_another_process_left_without_an_end_is_parted_from_the_record_after_it(folder: RunFolder) -> None:
    journal = folder.open_journal(1)
    with folder.journal.open("ab") as file:
        file.write(b'{"seq":6,"ti')
    journal.append(LogRecord(text="6"))
    assert [json.loads(line)["seq"] for line in journal.after(0)] == [1, 2, 3, 4, 5, 6, 7]
    journal.close()
    assert contents(folder)[5:] == [(6, "6"), (7, "alert")]
    assert folder.rejected.read_bytes() == b'{"seq":6,"ti\n'


def test_a_refused_record_is_replaced_while_another_process_has_written(folder: RunFolder) -> None:
    journal = folder.open_journal(1)
    with folder.journal.open("ab") as file:
        file.write(b"no record\n")
    journal.reject(2, "it is refused")
    journal.append(LogRecord(text="6"))
    journal.close()
    assert contents(folder) == [(1, "1"), (2, "alert"), (3, "3"), (4, "4"), (5, "5"), (6, "6"), (7, "alert")]
    assert folder.rejected.read_bytes().endswith(b"no record\n")
