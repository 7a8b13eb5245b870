from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from workers.contract.records import LogRecord, Record
from workers.contract.run.folder import RunFolder
from workers.contract.spec.data import Data
from workers.training.reporting.progress import progress_to, whole_of
from workers.training.reporting.reporter import Reporter

ALL = (
    "hashing the text",
    "looking for repeated paragraphs",
    "choosing documents for validation",
    "learning the vocabulary",
    "tokenizing",
)


def test_progress_is_told_at_each_stage_and_not_at_each_document(tmp_path: Path) -> None:
    records: list[Record] = []
    reporter = Reporter(RunFolder(tmp_path / "run"), on_record=records.append)
    progress = progress_to(reporter)
    assert progress is not None
    for part in range(1000):
        progress("tokenizing", part / 1000)
    reporter.close()
    assert [(record.text, record.done) for record in records if isinstance(record, LogRecord)] == [
        ("text: tokenizing", None)
    ]
    assert progress_to(None) is None


def test_a_preparation_that_is_a_stage_of_its_own_says_how_far_all_of_it_has_come(tmp_path: Path) -> None:
    records: list[Record] = []
    reporter = Reporter(RunFolder(tmp_path / "run"), on_record=records.append)
    progress = progress_to(reporter, whole_of(Data(corpus=("builtin:austen",), vocab=90)))
    assert progress is not None
    for what in ("learning the vocabulary", "tokenizing"):
        progress(what, 1.0)
    reporter.close()
    assert [record.done for record in records if isinstance(record, LogRecord)] == [pytest.approx(0.65 / 0.95), 1.0]


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({}, {0, 3, 4}),
        ({"vocab": "vocab.txt"}, {0, 4}),
        ({"deduplicate": True, "validation": 0.1}, {0, 1, 3, 4}),
        ({"validation": 0.1}, {0, 2, 3, 4}),
        ({"validation": ("builtin:austen-valid",)}, {0, 3, 4}),
    ],
)
def test_the_part_that_is_done_grows_over_the_stages_that_there_are_and_ends_at_all(
    settings: dict[str, Any], stages: set[int]
) -> None:
    whole = whole_of(Data(corpus=("builtin:austen",), **settings))
    told = [whole(ALL[number], done) for number in sorted(stages) for done in (0.0, 0.5, 1.0)]
    assert told[0] == 0.0
    assert 1.0 - 1e-12 < told[-1] <= 1.0
    assert all(before <= after for before, after in pairwise(told))
    assert len({round(each, 12) for each in told}) == 2 * len(stages) + 1, "no stage is without a share"
    assert whole(ALL[0], 0.0) == whole("waiting for another process that prepares this text", 0.0) == told[-1]
