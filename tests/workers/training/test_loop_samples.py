"""What the loop does with rows of other kinds than one pair of segments; the curves of those are in test_loop."""

from pathlib import Path
from typing import Any

import pytest

from tests.ranks import run_on_ranks
from tests.workers.small_job import document
from tests.workers.training.running import forget_after, records, steps, train
from workers.contract.records import AlertRecord, RunStatus

TITLE = "Rows are drawn in another order from here"
KINDS: dict[str, dict[str, Any]] = {
    "packed": {"packing": True, "short_sequences": 0.5},
    "single segments": {"next_sentence": False},
    "packed single segments": {"packing": True, "next_sentence": False, "whole_word": True},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the text of these tests is prepared once."""
    return tmp_path_factory.mktemp("home")


def job(text: Path, kind: dict[str, Any], workers: int = 1, zero_stage: int = 2) -> dict[str, Any]:
    whole = document(text, workers, zero_stage)
    return whole | {"data": whole["data"] | kind, "model": whole["model"] | {"dropout": 0.1}}


def curve(folder: Path) -> list[tuple[float | None, ...]]:
    return [
        (step.loss, step.grad_norm, step.mlm_accuracy, step.rows, step.samples, step.tokens) for step in steps(folder)
    ]


def alerts(folder: Path) -> list[AlertRecord]:
    return [record for record in records(folder) if isinstance(record, AlertRecord)]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_step_counts_rows_samples_and_real_tokens_and_has_the_losses_that_there_are(
    text: Path, home: Path, tmp_path: Path, kind: dict[str, Any]
) -> None:
    assert train(job(text, kind), tmp_path, home) is RunStatus.SUCCEEDED
    found = list(steps(tmp_path))
    for step in found:
        assert step.loss is not None
        assert step.mlm_loss is not None
        assert step.rows == 8
        assert (step.nsp_loss is None) == (kind.get("next_sentence") is False)
        assert step.loss == pytest.approx(step.mlm_loss + (step.nsp_loss or 0))
        assert (step.samples or 0) >= 8
        assert 0.9 * 8 * 32 < (step.tokens or 0) <= 8 * 32
    assert (max(step.samples or 0 for step in found) > 8) == kind.get("packing", False)


@pytest.mark.parametrize(
    ("kind", "zero_stage"),
    [(KINDS["packed"], 2), (KINDS["single segments"], 0), (KINDS["packed single segments"], 3)],
    ids=KINDS,
)
def test_two_workers_follow_the_curve_of_one_and_one_goes_on_from_their_checkpoint(
    text: Path, home: Path, tmp_path: Path, kind: dict[str, Any], zero_stage: int
) -> None:
    alone = tmp_path / "alone"
    train(job(text, kind), alone, home)
    run_on_ranks(2, train, job(text, kind, 2, zero_stage), tmp_path / "two", home)
    for one, two in zip(curve(alone), curve(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    forget_after(tmp_path / "two", 4)
    train(job(text, kind), tmp_path / "two", home, attempt=2)
    for one, two in zip(curve(alone), curve(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-4)


def test_a_run_of_a_version_that_drew_rows_otherwise_says_so_before_its_first_step(
    text: Path, home: Path, tmp_path: Path
) -> None:
    train(document(text), tmp_path, home)
    forget_after(tmp_path, 2)
    manifest = tmp_path / "checkpoints" / "step-00000002-a1" / "manifest.json"
    assert '"samples_format": 2,' in manifest.read_text()
    train(document(text), tmp_path, home, attempt=2)
    assert not [alert for alert in alerts(tmp_path) if alert.title == TITLE]

    forget_after(tmp_path, 2)
    manifest.write_text(manifest.read_text().replace(' "samples_format": 2,\n', ""))
    before = len(records(tmp_path))
    train(document(text), tmp_path, home, attempt=3)
    new = records(tmp_path)[before:]
    kinds = [record.kind for record in new]
    (alert,) = [alert for alert in alerts(tmp_path) if alert.title == TITLE]
    assert alert.seq == new[kinds.index("alert")].seq < new[kinds.index("step")].seq
    assert alert.level == "warning"
    assert "Step 2 was taken by a version that drew rows otherwise" in alert.detail
