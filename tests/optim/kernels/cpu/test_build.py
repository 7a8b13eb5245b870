"""The compiled kernel comes into being once, whole, and never by force."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optim.kernels.cpu import build

STEP = """
import torch
from optim import Lamb, backend
weight = torch.nn.Parameter(torch.ones(3))
for _ in range(2):
    weight.grad = torch.ones(3)
    optimizer = Lamb([weight], lr=0.1)
    optimizer.step()
print(backend("cpu").name, backend("cpu").reason, float(optimizer.last_step.update_norm))
"""
BUILD = "from optim.kernels.cpu import build; print(build.load()[1])"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "bigbatch" / "kernels"


def start(program: str, **environment: str) -> subprocess.Popen[str]:
    command, pipe = [sys.executable, "-W", "default", "-c", program], subprocess.PIPE
    return subprocess.Popen(command, env=os.environ | environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return out.strip(), err


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_without_a_compiler_one_warning_says_what_to_install_and_pytorch_computes(cache: Path) -> None:
    out, err = finish(start(STEP, PATH=str(cache), CXX=""))
    reason = "no C++ compiler found (tried g++, c++); install one: apt-get install g++"
    assert out.startswith(f"eager {reason}")
    assert float(out.split()[-1]) == pytest.approx(3**0.5, rel=0.02)
    assert err.count("RuntimeWarning: Lamb runs in plain PyTorch on the CPU") == err.count(reason) == 1
    assert not cache.exists()


def test_without_a_home_there_is_one_warning_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")  # what Path.home() says to a user without one

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(build.UnavailableError, match="Could not determine home directory"):
        build.load()


def test_processes_that_build_at_once_share_one_library(cache: Path) -> None:
    processes = [start(BUILD) for _ in range(2)]
    outputs = {finish(process) for process in processes}
    (library,) = cache.iterdir()
    assert outputs == {(str(library), "")}


def test_a_library_is_built_once_and_for_its_user_alone(cache: Path) -> None:
    _, library = build.load()
    built = library.stat().st_mtime_ns
    assert build.load()[1] == library
    assert library.stat().st_mtime_ns == built
    assert list(cache.iterdir()) == [library]
    assert cache.stat().st_mode & 0o077 == 0


def test_a_library_brings_no_openmp_of_its_own(cache: Path) -> None:
    _, library = build.load()
    content = library.read_bytes()
    assert library.parent == cache
    assert b"GOMP_parallel" in content
    assert b"libgomp" not in content


def test_another_target_is_another_library(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, native = build.load()
    older = script(tmp_path / "g++", f'exec {shutil.which("g++")} "$@" -DOLDER')
    monkeypatch.setenv("CXX", older)
    assert build.load()[1] != native
    assert len(list(cache.iterdir())) == 2


def test_a_compiler_that_fails_is_reported_with_its_words(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", script(tmp_path / "broken++", "echo this compiler is broken >&2; exit 1"))
    with pytest.raises(build.UnavailableError, match=r"broken\+\+ .* failed: this compiler is broken"):
        build.load()
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path, cache: Path) -> None:
    cache.parent.write_text("a file where a folder should be")
    with pytest.raises(build.UnavailableError, match=str(tmp_path / "bigbatch")):
        build.load()
