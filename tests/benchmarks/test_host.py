"""The benchmark of a step's host."""

import subprocess
import sys
from pathlib import Path

from benchmarks.host import CASES, row

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "host.py"


def test_a_row_has_the_least_and_the_median_of_both_and_their_ratios() -> None:
    figures = row(CASES[0], [0.004, 0.002, 0.003], [0.008, 0.001, 0.002])
    assert figures == [CASES[0].name, "2.00", "1.00", "2.00", "3.00", "2.00", "1.50"]


def test_the_program_measures_every_case() -> None:
    command = [sys.executable, str(PROGRAM), "--tensors", "3", "--steps", "2"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [each.name in printed for each in CASES] == [True] * len(CASES)
    assert len(printed.splitlines()) == 2 + len(CASES)
