import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.storage.logs import Log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rank-0.log"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(10)))
    return path


@pytest.fixture
def log(path: Path) -> Iterator[Log]:
    with Log(path) as log:
        yield log


def test_the_last_lines_are_read_and_a_line_that_has_not_ended_is_one(path: Path, log: Log) -> None:
    assert log.tail(2) == b"line 8\nline 9\n"
    assert log.tail(0) == b""
    with path.open("ab") as file:
        file.write(b"begun")
    assert log.tail(2) == b"line 9\nbegun"
    assert log.tail(1000) == path.read_bytes()


def test_the_older_half_is_read_where_the_newer_one_has_too_few_lines(path: Path, log: Log) -> None:
    path.with_name("rank-0.log.1").write_bytes(b"old 1\nold 2\n")
    assert log.tail(11) == b"old 2\n" + path.read_bytes()


def test_of_a_large_log_a_megabyte_is_read_from_the_beginning_of_a_line(path: Path, log: Log) -> None:
    lines = [b"%07d" % number + b"." * 92 + b"\n" for number in range(20_000)]
    path.write_bytes(b"".join(lines))
    assert log.tail(10_000_000) == b"".join(lines[-(2**20 // 100) :])


def test_what_is_added_is_read_until_the_one_who_writes_has_ended(path: Path, log: Log) -> None:
    log.tail(1)
    with path.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert log.more() == b""
        file.write(b"more\n")
        assert (log.more(), log.more()) == (b"more\n", b"")
        file.write(b"the last\n")
    assert (log.more(), log.more()) == (b"the last\n", None)


def test_a_log_that_was_begun_anew_meanwhile_is_read_to_its_end_and_then_the_new_one(path: Path, log: Log) -> None:
    log.tail(1)
    with path.open("ab") as file:
        file.write(b"the end of the old one\n")
    newer = path.with_name("newer")
    newer.write_bytes(b"new\n")
    newer.replace(path)
    assert [log.more() for _ in range(3)] == [b"the end of the old one\n", b"new\n", None]


def test_the_log_of_a_job_that_was_deleted_has_ended(path: Path, log: Log) -> None:
    log.tail(1)
    path.unlink()
    assert log.more() is None


def test_a_log_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Log(tmp_path / "rank-0.log")
