import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli import doctor
from server.cli.doctor import Mark


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_taken_port_names_its_holder_and_the_option(taken_port: int) -> None:
    finding = doctor.listening("127.0.0.1", taken_port)
    assert finding.mark is Mark.WARNING
    assert f"process {os.getpid()}" in finding.found
    assert "--port" in finding.remedy


def test_the_kernel_that_computes_on_the_cpu_is_named_with_its_file() -> None:
    finding = doctor.kernel()
    assert finding.mark is Mark.GOOD
    assert finding.found.startswith("the fused C++ kernel /")
    assert Path(finding.found.split()[-1]).is_file()


def test_a_missing_compiler_costs_speed_but_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    finding = doctor.kernel()
    assert finding.mark is Mark.WARNING
    assert finding.found.startswith("plain PyTorch, several times slower: no C++ compiler found")
    assert "apt-get install g++" in finding.remedy


def test_a_failed_build_is_shown_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    finding = doctor.kernel()
    assert finding.mark is Mark.WARNING
    assert re.search(r"/false .* failed", finding.found)
    assert "CXX" in finding.remedy


def test_a_missing_browser_matters_to_the_tests_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.chromium().mark is Mark.WARNING


def test_space_is_measured_where_a_home_would_be_made(tmp_path: Path) -> None:
    finding = doctor.disk(tmp_path / "not" / "made" / "yet")
    assert finding.mark is not Mark.MISSING
    assert "GiB free" in finding.found
    assert list(tmp_path.iterdir()) == []
