import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.report import BEGIN, END, insert, read, section
from tests.benchmarks.rows import made_up


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(asdict(made_up())))
    assert read(file) == made_up()


@pytest.mark.parametrize("text", ["", "{}", '{"results": [{"name": "Lamb"}], "machine": {}, "left_out": []}'])
def test_a_file_that_is_no_run_is_refused_with_the_remedy(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"run\.json: .*; write it anew with benchmarks/optimizer\.py --json"):
        read(file)


def test_the_section_stands_between_its_marks_with_goals_picture_and_tables() -> None:
    text = section(made_up(), "run.svg")
    assert text.startswith(BEGIN)
    assert text.endswith(END)
    assert next(line for line in text.splitlines() if "missed by" in line).split("|")[2:5] == [
        "  ≤ 1.4 ",
        "     1.50 ",
        "  missed by 7% ",
    ]
    assert "](run.svg)" in text
    assert "### bert-base, 1 rank of 1 thread" in text


def test_what_was_written_by_hand_stays() -> None:
    text = f"# Title\n\nBefore.\n\n{BEGIN}\n\nold\n\n{END}\n\nAfter.\n"
    assert insert(text, f"{BEGIN}\n\nnew\n\n{END}") == f"# Title\n\nBefore.\n\n{BEGIN}\n\nnew\n\n{END}\n\nAfter.\n"


def test_a_page_without_marks_gets_the_section_at_its_end() -> None:
    assert insert("# Title\n", f"{BEGIN}\n{END}") == f"# Title\n\n{BEGIN}\n{END}\n"
    assert insert("", f"{BEGIN}\n{END}") == f"{BEGIN}\n{END}\n"
