import os
import subprocess
import sys

import psutil
import pytest

from server.cluster.identity import start_of


def test_a_process_keeps_its_identity_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before, shown = start_of(os.getpid()), psutil.Process().create_time()
    boot = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + 1)
    assert psutil.Process().create_time() == shown + 1, "the start as a time of day has moved with the clock"
    assert start_of(os.getpid()) == before


def test_two_processes_have_two_identities_and_an_ended_one_has_none() -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert start_of(process.pid) not in {None, start_of(os.getpid())}
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert start_of(process.pid) is None, "a zombie does not live"
    assert start_of(process.pid) is None


@pytest.mark.parametrize("name", ["a b", "odd) S 1 ("])
def test_a_name_with_brackets_and_spaces_hides_nothing(name: str) -> None:
    script = f"open('/proc/self/comm', 'w').write({name!r}); print('.', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert start_of(process.pid) is not None
        ticks = int(str(start_of(process.pid)).rpartition(":")[2])
        since_boot_s = psutil.Process(process.pid).create_time() - psutil.boot_time()
        assert ticks / os.sysconf("SC_CLK_TCK") == pytest.approx(since_boot_s)
        process.communicate(b"\n")
