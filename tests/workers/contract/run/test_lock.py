import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from workers.contract.records import RECORD, LogRecord
from workers.contract.run.folder import RunFolder
from workers.contract.run.lock import Lock, LockedError, SupersededError

HOLD = """
import sys
from pathlib import Path
from workers.contract.run.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
print(folder.begin(), flush=True)
sys.stdin.read()
"""
WRITE = """
import sys
from pathlib import Path
from workers.contract.records import LogRecord
from workers.contract.run.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
folder.take_over(1)
journal = folder.open_journal(1)
print("ready", flush=True)
for line in sys.stdin:  # one record a line
    journal.append(LogRecord(text=line.strip()))
    print("written", flush=True)
"""
STOP_BETWEEN = """
import os, signal, sys
from pathlib import Path
from workers.contract.run.folder import RunFolder

class Slow(Path("/").__class__):
    def rename(self, target):
        if target.name == sys.argv[2]:
            print("stopped", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().rename(target)

folder = RunFolder(Slow(sys.argv[1]))
folder.take_over(1)
"""


@contextmanager
def process(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def say(child: subprocess.Popen[str], line: str) -> str:
    assert child.stdin
    child.stdin.write(line + "\n")
    child.stdin.flush()
    return hear(child)


def hear(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def wait_until_stopped(child: subprocess.Popen[str]) -> None:
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def numbers(folder: RunFolder) -> list[tuple[int, str]]:
    records = [RECORD.validate_json(line) for line in folder.journal.read_bytes().splitlines()]
    return [(record.seq, record.text) for record in records if record.kind == "log"]


def test_a_folder_that_another_process_has_is_refused_and_the_message_says_whose_it_is(tmp_path: Path) -> None:
    with process(HOLD, tmp_path) as child:
        assert hear(child) == "1"
        with pytest.raises(LockedError, match=rf"attempt 1 \(process {child.pid} on \S+, since .* UTC\)"):
            RunFolder(tmp_path).begin()


def test_a_process_that_was_killed_holds_nothing_and_the_next_attempt_has_the_next_number(tmp_path: Path) -> None:
    with process(HOLD, tmp_path) as child:
        hear(child)
    folder = RunFolder(tmp_path)
    assert (folder.begin(), folder.manifest().attempt) == (2, 2)
    folder.lock.release()
    assert (folder.begin(), folder.manifest().attempt) == (3, 3)
    folder.lock.release()


def test_a_stopped_attempt_is_taken_over_from_and_what_it_writes_afterwards_lands_nowhere(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with process(WRITE, tmp_path) as old:
        hear(old)
        assert say(old, "one") == say(old, "two") == "written"
        os.kill(old.pid, signal.SIGSTOP)
        wait_until_stopped(old)
        folder.take_over(2)
        journal = folder.open_journal(2)
        journal.append(LogRecord(text="three"))
        os.kill(old.pid, signal.SIGCONT)
        assert say(old, "too late") == ""
        assert old.stderr
        assert "attempt 1 is over" in old.stderr.read()
        journal.append(LogRecord(text="four"))
        journal.close()
    assert numbers(folder) == [(1, "one"), (2, "two"), (3, "three"), (4, "four")]
    assert (folder.manifest().attempt, folder.lock.holder() is not None) == (2, True)
    folder.lock.release()


def test_a_line_that_the_old_attempt_has_half_written_is_not_taken_along(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    old = folder.open_journal(1)
    old.append(LogRecord(text="one"))
    with folder.journal.open("ab") as half:
        half.write(b'{"seq":2,"kind":"lo')
        half.flush()
        folder.take_over(2)
        half.write(b'g"}\n')
    old.close()
    assert numbers(folder) == [(1, "one")]
    folder.lock.release()


@pytest.mark.parametrize("name", ["lock", "events.jsonl", "run.json"])
def test_an_attempt_that_was_stopped_while_it_took_over_cannot_undo_what_a_newer_one_did(
    name: str, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    first = folder.open_journal(0)
    first.append(LogRecord(text="one"))
    first.close()
    with process(STOP_BETWEEN, tmp_path, name) as old:
        hear(old)
        wait_until_stopped(old)
        folder.take_over(2)
        journal = folder.open_journal(2)
        journal.append(LogRecord(text="two"))
        os.kill(old.pid, signal.SIGCONT)
        assert old.wait(60) != 0
        assert old.stderr
        assert "SupersededError" in old.stderr.read()
        journal.append(LogRecord(text="three"))
        journal.close()
    assert numbers(folder) == [(1, "one"), (2, "two"), (3, "three")]
    assert folder.manifest().attempt == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".draft")] == []
    folder.lock.release()


def test_an_attempt_takes_over_from_lower_ones_but_not_from_a_higher_one_or_itself(tmp_path: Path) -> None:
    folder, other = RunFolder(tmp_path), RunFolder(tmp_path)
    folder.take_over(2)
    with pytest.raises(LockedError, match="attempt 2"):
        other.take_over(2)
    with pytest.raises(SupersededError, match="attempt 1 is over"):
        other.take_over(1)
    other.take_over(3)
    with pytest.raises(LockedError, match="attempt 3"):
        folder.begin()
    other.lock.release()
    folder.take_over(3)
    folder.lock.release()


def test_a_job_that_a_train_command_has_gone_on_with_has_no_number_twice(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.take_over(1)
    folder.lock.release()
    assert folder.begin() == 2
    folder.lock.release()
    with pytest.raises(SupersededError):
        folder.take_over(1)


@pytest.mark.parametrize("attempt", [None, 10**24, -5])
def test_a_lock_that_cannot_be_read_does_not_keep_anybody_out(attempt: int | None, tmp_path: Path) -> None:
    named = '{"attempt":%d,"pid":1,"host":"trainer","since":"2026-01-31T12:00:00Z"}\n'
    (tmp_path / "lock").write_text("\0\0\0" if attempt is None else named % attempt)
    lock = Lock(tmp_path / "lock")
    assert lock.holder() is None
    assert lock.acquire(lambda last: last + 1) == 1
    lock.release()
