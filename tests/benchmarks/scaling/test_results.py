import math
from pathlib import Path

import pytest

from benchmarks.scaling.results import read
from tests.benchmarks.scaling.rows import SETTING, made_up


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    made_up().write(file)
    assert read(file) == made_up()
    assert [path.name for path in tmp_path.iterdir()] == ["runs.json"]


def test_a_run_that_diverged_has_an_infinite_loss() -> None:
    assert [loss for loss in made_up().losses.values() if math.isinf(loss)] == [math.inf]


def test_the_steps_are_the_whole_batches_of_the_budget() -> None:
    assert [SETTING.steps(batch) for batch in (64, 256, 1024, 100_000)] == [180, 45, 11, 1]


@pytest.mark.parametrize("text", ["", "{}", '{"setting": {"model": "bert-tiny"}, "results": []}'])
def test_a_file_that_holds_no_runs_is_refused_with_the_remedy(tmp_path: Path, text: str) -> None:
    file = tmp_path / "runs.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"runs\.json: .*; move it away and run benchmarks/batch_scaling\.py again"):
        read(file)
