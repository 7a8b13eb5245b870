from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from tests.ranks import run_on_ranks
from tests.workers.control_plane import ControlPlane
from tests.workers.small_job import PHASE, document
from tests.workers.training.running import forget_after, records, steps, train
from workers.contract.push import Command
from workers.contract.records import CheckpointRecord, Record, RunStatus, StatusRecord, StepRecord
from workers.contract.sources import CorpusError
from workers.training import loop
from workers.training.reporting import telemetry


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the text of these tests is prepared once."""
    return tmp_path_factory.mktemp("home")


def ratios(step: StepRecord) -> list[float]:
    assert step.trust_ratio is not None
    return list(np.frombuffer(step.trust_ratio, "<f4").tolist())


def curve(folder: Path) -> list[list[float | None]]:
    return [[step.loss, step.grad_norm, step.mlm_accuracy, step.lr, *ratios(step)] for step in steps(folder)]


@pytest.fixture(scope="module")
def alone(text: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one worker's uninterrupted run."""
    folder = tmp_path_factory.mktemp("alone")
    assert train(document(text), folder, home) is RunStatus.SUCCEEDED
    return folder


def test_a_run_reports_every_step_once_and_its_end(alone: Path) -> None:
    assert [step.step for step in steps(alone)] == [1, 2, 3, 4, 5, 6]
    assert [r.step for r in records(alone) if isinstance(r, CheckpointRecord)] == [2, 4, 6]
    statuses = [record.status for record in records(alone) if isinstance(record, StatusRecord)]
    assert statuses == [RunStatus.RUNNING, RunStatus.SUCCEEDED]


def test_every_named_tensor_has_a_trust_ratio_and_only_adapted_ones_differ_from_one(alone: Path) -> None:
    (tensors,) = [record for record in records(alone) if record.kind == "tensors"]
    assert len(set(tensors.names)) == len(tensors.names) == 46
    for step in steps(alone):
        assert step.set == tensors.set
        for ratio, adapted in zip(ratios(step), tensors.adapted, strict=True):
            assert ratio > 0
            assert adapted or ratio == 1


def with_dropout(text: Path, **changes: Any) -> dict[str, Any]:
    return document(text, model=document(text)["model"] | {"dropout": 0.1}, **changes)


@pytest.fixture(scope="module")
def alone_with_dropout(text: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one worker's uninterrupted run with dropout."""
    folder = tmp_path_factory.mktemp("alone_with_dropout")
    assert train(with_dropout(text), folder, home) is RunStatus.SUCCEEDED
    return folder


def test_dropout_changes_the_curve(alone: Path, alone_with_dropout: Path) -> None:
    first, second = curve(alone)[0], curve(alone_with_dropout)[0]
    assert second != pytest.approx(first, rel=1e-3)


TWO_OF_EVERY_KIND = [{"zero_stage": stage} for stage in (0, 1, 2, 3, "auto")] + [
    {"zero_stage": stage, "replicate": 2} for stage in (1, 2, 3)
]


@pytest.mark.parametrize("kind", TWO_OF_EVERY_KIND, ids=str)
def test_two_workers_of_any_zero_stage_or_copies_follow_the_curve_of_one_with_dropout_too(
    kind: dict[str, Any], alone_with_dropout: Path, text: Path, home: Path, tmp_path: Path
) -> None:
    run_on_ranks(2, train, with_dropout(text, parallel={"workers": 2} | kind), tmp_path, home)
    for expected, found in zip(curve(alone_with_dropout), curve(tmp_path), strict=True):
        assert found == pytest.approx(expected, rel=2e-5)


TWICE = {"execution": {"activation_checkpointing": True}}


def test_activations_that_are_computed_twice_change_no_bit_of_one_worker(
    alone_with_dropout: Path, text: Path, home: Path, tmp_path: Path
) -> None:
    train(with_dropout(text, **TWICE), tmp_path, home)
    assert curve(tmp_path) == curve(alone_with_dropout)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_activations_that_are_computed_twice_change_no_bit_of_two(
    zero_stage: int, text: Path, home: Path, tmp_path: Path
) -> None:
    job = with_dropout(text, workers=2, zero_stage=zero_stage)
    run_on_ranks(2, train, job, tmp_path / "once", home)
    run_on_ranks(2, train, job | TWICE, tmp_path / "twice", home)
    assert curve(tmp_path / "twice") == curve(tmp_path / "once")


def test_copies_of_a_model_that_is_sharded_too_follow_the_curve_of_one(text: Path, home: Path, tmp_path: Path) -> None:
    job = document(text, phases=[PHASE | {"micro_batch_size": 1}])
    train(job, tmp_path / "alone", home)
    run_on_ranks(4, train, job | {"parallel": {"workers": 4, "replicate": 2, "zero_stage": 2}}, tmp_path / "four", home)
    for expected, found in zip(curve(tmp_path / "alone"), curve(tmp_path / "four"), strict=True):
        assert found == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("stages", [(0, "auto"), ("auto", 0)], ids=str)
def test_one_worker_alone_and_as_a_mesh_of_one_follow_one_curve_and_load_each_others_checkpoints(
    stages: tuple[int | str, int | str], alone: Path, text: Path, home: Path, tmp_path: Path
) -> None:
    before, after = stages
    train(document(text, zero_stage=before), tmp_path, home)
    forget_after(tmp_path, 4)
    train(document(text, zero_stage=after), tmp_path, home, attempt=2)
    taken = [
        record.zero_stage for record in records(tmp_path) if isinstance(record, StatusRecord) and record.world_size
    ]
    assert taken == [1 if stage == "auto" else stage for stage in stages]
    for expected, found in zip(curve(alone), curve(tmp_path), strict=True):
        assert found == pytest.approx(expected, rel=2e-5)


def test_a_run_that_was_killed_goes_on_from_its_checkpoint_to_the_same_bits(
    alone_with_dropout: Path, text: Path, home: Path, tmp_path: Path
) -> None:
    train(with_dropout(text), tmp_path, home)
    forget_after(tmp_path, 2)
    assert train(with_dropout(text), tmp_path, home, attempt=2) is RunStatus.SUCCEEDED
    numbers = [record.step for record in records(tmp_path) if isinstance(record, StepRecord)]
    assert numbers == [1, 2, 3, 4, 5, 6, 3, 4, 5, 6]
    assert curve(tmp_path) == curve(alone_with_dropout)


def test_a_checkpoint_of_two_workers_is_gone_on_with_by_one(
    alone: Path, text: Path, home: Path, tmp_path: Path
) -> None:
    run_on_ranks(2, train, document(text, workers=2, zero_stage=3), tmp_path, home)
    forget_after(tmp_path, 4)
    train(document(text, workers=1), tmp_path, home)
    for straight, resumed in zip(curve(alone), curve(tmp_path), strict=True):
        assert resumed == pytest.approx(straight, rel=2e-5)


def train_attempt(document: dict[str, Any], folder: Path, home: Path, attempt: int) -> RunStatus:
    return train(document, folder, home, attempt=attempt)


def test_a_run_that_loses_one_worker_after_another_follows_the_curve_of_one_worker(
    text: Path, home: Path, tmp_path: Path
) -> None:
    """Four workers take steps 1 and 2, three take 3 and 4, two take 5 and 6, and one takes 7 and 8."""
    phases = [PHASE | {"global_batch_size": 24, "steps": 8}]
    job = with_dropout(text, phases=phases, parallel={"workers": {"min": 1, "max": 4}}, export={"at_end": False})
    train(job, tmp_path / "alone", home)
    folder = tmp_path / "shrinking"
    for attempt, workers in enumerate((4, 3, 2, 1), start=1):
        run_on_ranks(workers, train_attempt, job, folder, home, attempt)
        taken = [r.step for r in records(folder) if isinstance(r, StepRecord) and r.attempt == attempt]
        assert taken == list(range(2 * attempt - 1, 9))
        forget_after(folder, 2 * attempt)
    for alone, step in zip(steps(tmp_path / "alone"), steps(folder), strict=True):
        assert (step.rows, step.samples, step.tokens) == (24, alone.samples, alone.tokens)
    for expected, found in zip(curve(tmp_path / "alone"), curve(folder), strict=True):
        assert found == pytest.approx(expected, rel=5e-5)


def test_a_finished_run_is_not_trained_again(text: Path, home: Path, tmp_path: Path) -> None:
    train(document(text), tmp_path, home)
    before = curve(tmp_path)
    assert train(document(text), tmp_path, home) is RunStatus.SUCCEEDED
    assert curve(tmp_path) == before
    assert len([record for record in records(tmp_path) if isinstance(record, StepRecord)]) == 6


def test_phases_run_in_order_with_their_own_length_batch_and_rate(text: Path, home: Path, tmp_path: Path) -> None:
    second = PHASE | {"seq_len": 16, "global_batch_size": 4, "steps": 3, "lr": 1e-3, "warmup": 1.0, "reset": ["step"]}
    train(document(text, phases=[PHASE, second]), tmp_path, home)
    found = list(steps(tmp_path))
    assert [step.phase for step in found] == [0] * 6 + [1] * 3
    assert [step.lr for step in found[6:]] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])


@pytest.mark.parametrize(
    ("command", "outcome"), [(Command.STOP, RunStatus.CANCELLED), (Command.PAUSE, RunStatus.PAUSED)]
)
def test_a_command_ends_the_run_at_a_checkpoint(
    command: Command, outcome: RunStatus, text: Path, home: Path, tmp_path: Path
) -> None:
    plane = ControlPlane(tmp_path)
    plane.command = command
    try:
        assert train(document(text, phases=[PHASE | {"steps": 100_000}]), tmp_path, home) is outcome
    finally:
        plane.close()
    last = [record for record in records(tmp_path) if isinstance(record, StepRecord)][-1].step
    assert [r.step for r in records(tmp_path) if isinstance(r, CheckpointRecord)][-1] == last < 100_000


def test_a_checkpoint_that_is_asked_for_is_taken_once_though_the_replies_repeat_it(
    text: Path, home: Path, tmp_path: Path
) -> None:
    plane = ControlPlane(tmp_path)
    plane.command = Command.CHECKPOINT

    def ask(record: Record) -> None:
        if isinstance(record, StepRecord) and record.step in {10, 20}:
            plane.request += 1
        if isinstance(record, StepRecord) and record.step in {10, 15, 20, 25}:
            plane.wait_for_pushes(plane.pushes + 2)  # the second one was begun after the change

    try:
        job = document(text, phases=[PHASE | {"steps": 30}], checkpoint={"every_steps": 1000, "keep": 9})
        assert train(job, tmp_path, home, on_record=ask) is RunStatus.SUCCEEDED
    finally:
        plane.close()
    saved = [(r.step, r.request) for r in records(tmp_path) if isinstance(r, CheckpointRecord)]
    assert [request for _, request in saved] == [1, 2, 2]
    assert [step for step, _ in saved] == [11, 21, 30], "a request is heard in the step after the one that it came in"


def test_a_run_whose_gradients_stay_infinite_is_given_up_with_a_remedy(text: Path, home: Path, tmp_path: Path) -> None:
    hopeless = PHASE | {"lr": 1e38, "steps": 60, "warmup": 0.0}
    with pytest.raises(loop.DivergedError, match=r"lower phases\[0\]\.lr"):
        train(document(text, phases=[hopeless]), tmp_path, home)
    assert [step.skipped for step in steps(tmp_path)][-loop.MAX_BAD_IN_A_ROW :] == [True] * 20


def test_where_steps_are_reported_in_batches_a_checkpoint_waits_for_those_it_holds(
    monkeypatch: pytest.MonkeyPatch, text: Path, home: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(telemetry._STEPS_PER_FLUSH, "cpu", 4)
    train(document(text, checkpoint={"every_steps": 3, "keep": 9, "asynchronous": False}), tmp_path, home)
    order = [(r.kind, r.step) for r in records(tmp_path) if isinstance(r, StepRecord | CheckpointRecord)]
    first = [("step", 1), ("step", 2), ("step", 3), ("checkpoint", 3)]
    assert order == [*first, ("step", 4), ("step", 5), ("step", 6), ("checkpoint", 6)]


def train_without_text_on_rank_1(document: dict[str, Any], folder: Path, home: Path) -> str:
    if dist.get_rank() == 1:
        document["data"]["corpus"] = [str(folder / "nowhere.txt")]
    with pytest.raises(CorpusError) as caught:
        train(document, folder, home)
    return str(caught.value)


def test_a_rank_without_text_ends_the_run_on_all_ranks_with_its_reason(text: Path, home: Path, tmp_path: Path) -> None:
    said = run_on_ranks(2, train_without_text_on_rank_1, document(text, workers=2), tmp_path, home)
    assert said[0] == said[1]
    assert "nowhere.txt" in said[0]
