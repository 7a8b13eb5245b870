from pathlib import Path

import numpy as np
import pytest

from workers.contract.text_files import TextFile
from workers.corpus.reading.text import Reading
from workers.corpus.reading.units import Unit
from workers.corpus.work.finished import Finished
from workers.corpus.work.tasks import Marks, Outlining, Tokenizing

UNIT = Unit(TextFile("/a.txt"), 0, 100, 100, is_last=False)
TASK = Outlining(Reading())


def test_an_outcome_is_found_again(tmp_path: Path) -> None:
    Finished(tmp_path / "units").put(TASK, UNIT, None, b"outcome")
    assert Finished(tmp_path / "units").get(TASK, UNIT, None) == b"outcome"


@pytest.mark.parametrize(
    ("task", "unit", "marks"),
    [
        (Tokenizing(["[UNK]"], lowercase=True, reading=Reading()), UNIT, None),
        (TASK, Unit(TextFile("/a.txt"), 0, 101, 101, is_last=False), None),
        (TASK, Unit(TextFile("/a.txt"), 0, 100, 100, is_last=True), None),
        (TASK, Unit(TextFile("/b.txt"), 0, 100, 100, is_last=False), None),
        (TASK, UNIT, np.zeros(1, np.uint8)),
    ],
)
def test_the_outcome_of_anything_else_is_not_taken_for_it(
    tmp_path: Path, task: Outlining | Tokenizing, unit: Unit, marks: Marks | None
) -> None:
    finished = Finished(tmp_path)
    finished.put(TASK, UNIT, None, b"outcome")
    assert finished.get(task, unit, marks) is None


def test_a_damaged_outcome_is_none(tmp_path: Path) -> None:
    finished = Finished(tmp_path)
    finished.put(TASK, UNIT, None, b"outcome")
    (path,) = tmp_path.iterdir()
    for content in (path.read_bytes()[:-1], path.read_bytes()[:-1] + b"X", b""):
        path.write_bytes(content)
        assert finished.get(TASK, UNIT, None) is None
