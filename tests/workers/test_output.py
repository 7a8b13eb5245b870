import fcntl
import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.service import wait_for
from workers import output

PRINT = """
import os, signal, sys
from pathlib import Path
from workers import output
output.keep(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def printing(
    folder: Path, script: str, *, before: str = "", is_file: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run a script that prints into the file `ray.out`, as a process of Ray does, or else into pipes."""
    command = [sys.executable, "-c", before + PRINT + script, str(folder / "logs/log"), str(folder / "logs/log.1")]
    with (folder / "ray.out").open("wb") as file:
        stdout = file if is_file else subprocess.PIPE
        return subprocess.run(command, stdout=stdout, stderr=subprocess.STDOUT, check=False, timeout=60)


def has_ended(log: Path) -> bool:
    with log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def kept(folder: Path) -> bytes:
    """What the log holds once nobody writes it any more."""
    log = folder / "logs/log"
    wait_for(lambda: has_ended(log), "the end of the copying process")
    return log.read_bytes()


def test_what_python_c_and_a_process_of_its_own_print_is_in_the_log_and_where_ray_looks(tmp_path: Path) -> None:
    script = "print('python', flush=True); os.write(2, b'c\\n'); os.system('echo child')"
    assert printing(tmp_path, script).returncode == 0
    assert kept(tmp_path) == (tmp_path / "ray.out").read_bytes() == b"python\nc\nchild\n"


def test_the_last_words_of_a_process_that_is_killed_are_kept_too(tmp_path: Path) -> None:
    script = "os.write(1, b'the last words'); os.kill(os.getpid(), signal.SIGKILL)"
    assert printing(tmp_path, script).returncode == -signal.SIGKILL
    assert kept(tmp_path) == b"the last words\n"


def test_what_was_printed_before_is_kept_and_notes_of_ray_to_itself_are_not(tmp_path: Path) -> None:
    script = "print(':actor_name:RayTrainWorker'); print('a :job_id:01000000'); print(':job_id:01000000')"
    assert printing(tmp_path, script, before="print('before', flush=True)\n").returncode == 0
    assert kept(tmp_path) == b"before\na :job_id:01000000\n"


def test_a_process_that_does_not_print_into_a_file_has_a_log_that_says_so(tmp_path: Path) -> None:
    assert printing(tmp_path, "print('into a pipe')", is_file=False).stdout == b"into a pipe\n"
    assert kept(tmp_path) == b"bigbatch: this process does not print into a file, so what it prints is not kept here\n"


def test_a_folder_that_cannot_be_made_is_told_and_the_process_goes_on(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    assert printing(tmp_path, "print('goes on')").returncode == 0
    first, second = (tmp_path / "ray.out").read_text().splitlines()
    assert first.startswith("what this process prints is not kept in")
    assert second == "goes on"


def test_a_log_that_is_large_becomes_the_older_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "HALF_BYTES", 100)
    log, older = tmp_path / "log", tmp_path / "older"
    copy = output._Copy(log, older)
    for number in range(25):
        copy.add(b"line %04d\n" % number)
    assert log.read_bytes() == b"".join(b"line %04d\n" % number for number in range(20, 25))
    assert older.read_bytes() == b"".join(b"line %04d\n" % number for number in range(10, 20))
    assert not has_ended(log)
    assert {path.name for path in tmp_path.iterdir()} == {"log", "older"}
    copy._file.close()


def test_lines_that_do_not_fit_on_the_disk_are_said_to_be_missing(tmp_path: Path) -> None:
    copy = output._Copy(tmp_path / "log", tmp_path / "older")
    whole, copy._file = copy._file, io.FileIO("/dev/full", "w")
    copy.add(b"lost\n")
    copy._file.close()
    copy._file = whole
    copy.add(b"kept\n")
    copy._file.close()
    said, kept_line = (tmp_path / "log").read_text().splitlines()
    assert said == "bigbatch: lines are missing here: [Errno 28] No space left on device"
    assert kept_line == "kept"
