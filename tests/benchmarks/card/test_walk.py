import json
from pathlib import Path

import pytest

from benchmarks.card.place import place
from benchmarks.card.walk import WalkError, walk


def test_a_walk_that_cannot_begin_says_where_it_ended_and_what_the_program_said(tmp_path: Path) -> None:
    here = place(tmp_path / "place", tmp_path, "cpu")
    (here.folder / "packages" / "transformers.py").write_text("raise ImportError('no transformers for this test')\n")
    with pytest.raises(WalkError, match="train until SIGTERM: after SIGTERM the exit code was 1, not 143") as refused:
        walk(here)
    assert "no transformers for this test" in str(refused.value)
    assert json.loads((here.folder / "walk.json").read_text())["parallel"]["gpus_per_worker"] == 0
