"""Every program of the folder starts where it is run by its path, as the documentation runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
PROGRAMS = sorted(path for path in FOLDER.glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_program_says_what_it_does_when_it_is_asked(program: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(program), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout


def test_there_are_programs() -> None:
    assert {path.name for path in PROGRAMS} >= {"optimizer.py", "overlap.py", "report.py", "throughput.py"}
