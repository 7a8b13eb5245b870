"""A branch on two workers, beside the run that it goes on from."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import run_on_ranks
from tests.workers.small_job import PHASE, document
from tests.workers.training.running import checkpoints, forget_after, records, steps, train
from workers.checkpoints.errors import CheckpointError
from workers.contract.documents import parse_spec
from workers.contract.manifests import Parent
from workers.contract.records import StepRecord
from workers.contract.run.branches import branch
from workers.contract.run.folder import RunFolder

TWO: list[dict[str, Any]] = [PHASE | {"steps": 5}, PHASE | {"seq_len": 16, "steps": 3, "reset": ["step"]}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the text of these tests is prepared once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def parent(text: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two phases on two workers."""
    folder = tmp_path_factory.mktemp("parent")
    RunFolder(folder).put_spec(parse_spec(document(text, workers=2, phases=TWO)))
    run_on_ranks(2, train, document(text, workers=2, phases=TWO), folder, home)
    return folder


def branched(text: Path, parent: Path, folder: Path, step: int = 4, **changes: Any) -> dict[str, Any]:
    """Make a branch of `parent`, and return its specification."""
    start = {"run": str(parent), "step": step}
    job = document(text, workers=2, phases=TWO) | {"start_from": start} | changes
    spec = parse_spec(job)
    assert spec.start_from is not None
    branch(RunFolder(folder), spec, spec.start_from, RunFolder(parent))
    return job


def curve(folder: Path) -> dict[int, tuple[float | None, float | None, bytes | None]]:
    return {step.step: (step.loss, step.grad_norm, step.trust_ratio) for step in steps(folder)}


def test_a_branch_in_which_nothing_is_set_goes_on_to_the_same_bits_when_the_parents_checkpoint_is_gone(
    text: Path, home: Path, parent: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(parent, tmp_path / "parent")
    job = branched(text, copy, tmp_path / "branch")
    shutil.rmtree(copy)
    run_on_ranks(2, train, job, tmp_path / "branch", home)
    expected = curve(parent)
    assert curve(tmp_path / "branch") == {step: expected[step] for step in (5, 6, 7, 8)}


@pytest.mark.parametrize(
    "changes",
    [
        {"phases": [TWO[0] | {"lr": 1e-3}, TWO[1]]},
        {"optimizer": {"weight_decay": 0.9}},
        {"optimizer": {"name": "adamw", "moments": "bfloat16", "no_decay": ["bias"]}},
    ],
)
def test_what_a_branch_sets_holds_from_its_first_step_and_no_sooner(
    changes: dict[str, Any], text: Path, home: Path, parent: Path, tmp_path: Path
) -> None:
    run_on_ranks(2, train, branched(text, parent, tmp_path, step=2, **changes), tmp_path, home)
    expected, found = curve(parent), curve(tmp_path)
    # Computed with the parent's weights, on the rows that came next. Other groups add up the norm in another order.
    assert found[3][:2] == pytest.approx(expected[3][:2], rel=1e-12)
    assert found[4][0] != expected[4][0]


def test_a_phase_that_has_not_begun_may_have_another_length_and_batch(
    text: Path, home: Path, parent: Path, tmp_path: Path
) -> None:
    phases = [TWO[0], PHASE | {"seq_len": 24, "global_batch_size": 16, "steps": 2}]
    run_on_ranks(2, train, branched(text, parent, tmp_path, phases=phases), tmp_path, home)
    assert curve(tmp_path)[5] == curve(parent)[5]
    assert [(step.step, step.samples) for step in steps(tmp_path)] == [(5, 8), (6, 16), (7, 16)]


def test_a_later_attempt_goes_on_from_the_branchs_own_newest_checkpoint_and_the_parent_stays_known(
    text: Path, home: Path, parent: Path, tmp_path: Path
) -> None:
    job = branched(text, parent, tmp_path, checkpoint={"every_steps": 1, "keep": 2})
    run_on_ranks(2, train, job, tmp_path, home)
    forget_after(tmp_path, 7)
    run_on_ranks(2, second_attempt, job, tmp_path, home)
    taken = [(record.step, record.attempt) for record in records(tmp_path) if isinstance(record, StepRecord)]
    assert taken == [(5, 1), (6, 1), (7, 1), (8, 1), (8, 2)]
    assert "step-00000004" not in checkpoints(tmp_path)  # its own retention has removed what it began with
    assert RunFolder(tmp_path).manifest().parent == Parent(run=str(parent), step=4)


def second_attempt(job: dict[str, Any], folder: Path, home: Path) -> None:
    train(job, folder, home, attempt=2)


def test_a_branch_whose_checkpoint_was_removed_does_not_begin_at_step_1(text: Path, home: Path, tmp_path: Path) -> None:
    job = document(text, start_from={"run": "1qx92r16q7na", "step": 4})
    with pytest.raises(CheckpointError, match="step 4, which this branch of 1qx92r16q7na began with, is not there"):
        train(job, tmp_path, home)
