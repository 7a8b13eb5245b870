"""How a journal is read whose lines cannot all be read."""

from pathlib import Path

import pytest

from tests.workers.contract.run.journals import break_line, contents, write
from workers.contract.run.folder import RunFolder
from workers.contract.run.journal import Lines

NULS = b"\0" * 4096 + b"\n"
TEXT_FOR_NUMBER = b'{"seq":"6","time":"2026-01-31T12:00:00Z","kind":"log","text":"6"}\n'


@pytest.mark.parametrize(
    "garbage", [NULS, b"garbage\n", b"{}\n", b"\xff\xfe\n", b'{"seq":6,"kind":"log"}\n', TEXT_FOR_NUMBER, b"\n"]
)
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


@pytest.mark.parametrize("stray", [0, -1])
def test_a_line_with_a_number_that_no_record_has_costs_no_other_line(stray: int, folder: RunFolder) -> None:
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    folder.journal.write_bytes(b"".join([lines[0].replace(b'"seq":1', b'"seq":%d' % stray), *lines]))
    write(folder, "after")
    assert contents(folder)[:5] == [(number, str(number)) for number in range(1, 6)]
    assert contents(folder)[-1][1] == "after"


def test_a_journal_that_was_mended_is_not_mended_again(folder: RunFolder) -> None:
    break_line(folder, 3, b"garbage\n")
    write(folder)
    before = folder.journal.read_bytes()
    write(folder)
    assert folder.journal.read_bytes() == before
    assert folder.rejected.read_bytes() == b"garbage\n"


def test_a_carriage_return_between_two_fields_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq":1,\r"a":1}\r\n{"seq":2}\n')
    lines = Lines(path.open("rb"))
    assert lines.after(0) == [b'{"seq":1,\r"a":1}\r', b'{"seq":2}']
    lines.close()
