"""What a run does with checkpoints; tests of the curve are in test_loop."""

import json
import resource
import shutil
import signal
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from tests.ranks import run_on_ranks
from tests.workers.small_job import PHASE, document, four_steps
from tests.workers.training.running import checkpoints, forget_after, records, steps, train
from workers.checkpoints.errors import CheckpointError
from workers.contract.documents import parse_spec
from workers.contract.manifests import identity
from workers.contract.records import (
    AlertRecord,
    CheckpointRecord,
    EvaluationRecord,
    Record,
    RunStatus,
    StatusRecord,
    StepRecord,
)
from workers.contract.run.folder import RunFolder
from workers.contract.run.store import FolderStore
from workers.ranks import process_group
from workers.training import checkpointing, loop
from workers.training.reporting.reporter import Reporter
from workers.training.safety.signals import StopRequest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the text of these tests is prepared once."""
    return tmp_path_factory.mktemp("home")


def alerts(folder: Path) -> list[AlertRecord]:
    return [record for record in records(folder) if isinstance(record, AlertRecord)]


def saved(folder: Path) -> list[CheckpointRecord]:
    return [record for record in records(folder) if isinstance(record, CheckpointRecord)]


def test_each_attempt_writes_folders_of_its_own(text: Path, home: Path, tmp_path: Path) -> None:
    train(document(text), tmp_path, home)
    forget_after(tmp_path, 2)
    before = (tmp_path / "checkpoints" / "step-00000002-a1" / "manifest.json").read_bytes()
    train(document(text), tmp_path, home, attempt=2)
    assert checkpoints(tmp_path) == ["step-00000002-a1", "step-00000004-a2", "step-00000006-a2"]
    assert (tmp_path / "checkpoints" / "step-00000002-a1" / "manifest.json").read_bytes() == before


def test_after_a_damaged_checkpoint_the_run_goes_on_from_the_one_before_and_says_so(
    text: Path, home: Path, tmp_path: Path
) -> None:
    train(document(text), tmp_path, home)
    expected = [(step.loss, step.grad_norm) for step in steps(tmp_path)]
    file = tmp_path / "checkpoints" / "step-00000006-a1" / "__0_0.distcp"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert train(document(text), tmp_path, home, attempt=2) is RunStatus.SUCCEEDED
    numbers = [record.step for record in records(tmp_path) if isinstance(record, StepRecord)]
    assert numbers == [1, 2, 3, 4, 5, 6, 5, 6]
    assert [(step.loss, step.grad_norm) for step in steps(tmp_path)] == expected
    (alert,) = [alert for alert in alerts(tmp_path) if alert.level == "error"]
    assert "step-00000006-a1: __0_0.distcp has the sha256" in alert.detail
    assert "goes on from step 4" in alert.detail


def test_where_all_checkpoints_are_damaged_no_step_is_taken(text: Path, home: Path, tmp_path: Path) -> None:
    train(document(text), tmp_path, home)
    for manifest in (tmp_path / "checkpoints").glob("*/manifest.json"):
        manifest.write_text("")
    before = len(list(records(tmp_path)))
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"):
        train(document(text), tmp_path, home, attempt=2)
    assert not [r for r in records(tmp_path)[before:] if isinstance(r, StepRecord)]


def test_each_record_names_the_checkpoints_that_stay(text: Path, home: Path, tmp_path: Path) -> None:
    train(document(text, checkpoint={"every_steps": 1, "keep": 2}), tmp_path, home)
    named = [[Path(path).name for path in record.kept or []] for record in saved(tmp_path)]
    assert named[0] == ["step-00000001-a1"]
    assert named[-1] == ["step-00000005-a1", "step-00000006-a1"] == checkpoints(tmp_path)
    assert all(record.path in (record.kept or []) for record in saved(tmp_path))


def test_the_best_checkpoint_of_each_phase_stays_beside_the_newest(text: Path, tmp_path: Path) -> None:
    data = {"corpus": [str(text)], "vocab": 90, "validation": 0.2}
    second = PHASE | {"lr": 1.0, "warmup": 0.0}  # too high: its first checkpoint is better than the later ones
    often = {"evaluation": {"every_steps": 2}, "checkpoint": {"every_steps": 2, "keep": 1}}
    job = document(text, phases=[PHASE, second]) | {"data": data, **often}
    train(job, tmp_path, tmp_path)
    judged = [record for record in records(tmp_path) if isinstance(record, EvaluationRecord)]
    assert [record.step for record in judged] == [2, 4, 6, 8, 10, 12]
    phases = [[record for record in judged if record.phase == phase] for phase in (0, 1)]
    best = {min(phase, key=lambda record: record.mlm_loss or 0.0).step for phase in phases}
    assert 12 not in best
    assert checkpoints(tmp_path) == [f"step-{step:08d}-a1" for step in sorted({*best, 12})]
    assert [Path(path).name for path in saved(tmp_path)[-1].kept or []] == checkpoints(tmp_path)


def test_whatever_the_intervals_the_last_step_of_a_phase_is_judged_and_has_a_checkpoint(
    text: Path, tmp_path: Path
) -> None:
    data = {"corpus": [str(text)], "vocab": 90, "validation": 0.2}
    rarely = {"evaluation": {"every_steps": 5}, "checkpoint": {"every_steps": 4, "keep": 1}}
    job = document(text, phases=[PHASE, PHASE | {"steps": 5}]) | {"data": data, **rarely}
    train(job, tmp_path, tmp_path)
    assert checkpoints(tmp_path) == ["step-00000006-a1", "step-00000011-a1"]


def test_a_run_that_diverges_keeps_its_checkpoints_from_before(text: Path, home: Path, tmp_path: Path) -> None:
    diverging = PHASE | {"lr": 1e38, "steps": 60, "warmup": 0.0}
    job = document(text, phases=[PHASE, diverging], checkpoint={"every_steps": 3, "keep": 2})
    with pytest.raises(loop.DivergedError):
        train(job, tmp_path, home)
    sound = {
        path.parent.name: json.loads(path.read_text())["is_sound"]
        for path in (tmp_path / "checkpoints").glob("*/manifest.json")
    }
    assert [name for name in sorted(sound) if sound[name]] == ["step-00000003-a1", "step-00000006-a1"]
    assert len(sound) == 4
    assert [Path(path).name for path in saved(tmp_path)[-1].kept or []] == checkpoints(tmp_path)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_each_record_says_how_long_training_was_held(
    asynchronous: bool, text: Path, home: Path, tmp_path: Path
) -> None:
    train(document(text, checkpoint={"every_steps": 2, "asynchronous": asynchronous}), tmp_path, home)
    assert [record.step for record in saved(tmp_path)] == [2, 4, 6]
    assert all(record.held_s is not None and record.held_s > 0 for record in saved(tmp_path))
    in_order = [record.step for record in records(tmp_path) if isinstance(record, StepRecord | CheckpointRecord)]
    assert asynchronous or in_order == [1, 2, 2, 3, 4, 4, 5, 6, 6]


def all_bits(folder: Path, target: Path) -> dict[str, torch.Tensor]:
    """Weights and moments of every checkpoint of a run, by folder and name."""
    found = {}
    for name in checkpoints(folder):
        dcp_to_torch_save(folder / "checkpoints" / name, target)
        content = torch.load(target, weights_only=True)
        for tensor, value in content["model"].items():
            found[f"{name} {tensor}"] = value
        for tensor, state in content["optimizer"]["state"].items():
            found |= {f"{name} {tensor} {key}": value for key, value in state.items()}
    return found


@pytest.mark.parametrize(
    ("workers", "zero_stage", "replicate"), [(1, 2, 1), (2, 0, 1), (2, 1, 1), (2, 3, 1), (4, 2, 2)]
)
def test_written_in_the_background_or_not_checkpoints_hold_the_same_bits(
    workers: int, zero_stage: int, replicate: int, text: Path, home: Path, tmp_path: Path
) -> None:
    parallel = {"workers": workers, "zero_stage": zero_stage, "replicate": replicate}
    found = []
    for asynchronous in (True, False):
        job = four_steps(text, checkpoint={"every_steps": 1, "keep": 9, "asynchronous": asynchronous})
        folder = tmp_path / str(asynchronous)
        run_on_ranks(workers, train, job | {"parallel": parallel}, folder, home)
        found.append(all_bits(folder, tmp_path / "one.pt"))
    assert found[0].keys() == found[1].keys()
    assert len({name.partition(" ")[0] for name in found[0]}) == 4
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


class Full:
    """A disk on which no large file has place any more once a checkpoint was written; the journal, a small one, has.

    Once an alert has told of it, there is place again.
    """

    def __init__(self, after: int) -> None:
        self._after = after

    def __call__(self, record: Record) -> None:
        if isinstance(record, CheckpointRecord) and record.step == self._after:
            limit_files(60_000)
        if isinstance(record, AlertRecord) and record.level == "error":
            limit_files(None)


def limit_files(size_bytes: int | None) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size_bytes is None else size_bytes, hard))


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_checkpoint_for_which_there_is_no_place_is_left_out_and_training_goes_on(
    asynchronous: bool, text: Path, home: Path, tmp_path: Path
) -> None:
    job = document(text, checkpoint={"every_steps": 2, "keep": 1, "asynchronous": asynchronous})
    train(job, tmp_path / "straight", home)
    assert train(job, tmp_path / "full", home, on_record=Full(2)) is RunStatus.SUCCEEDED
    assert [record.step for record in saved(tmp_path / "full")] == [2, 6]
    (alert,) = [alert for alert in alerts(tmp_path / "full") if alert.level == "error"]
    assert alert.title == "A checkpoint could not be written"
    assert "step 4 could not be written to" in alert.detail
    assert "File too large" in alert.detail
    assert "would go on from step 2" in alert.detail
    curves = [[(s.step, s.loss, s.grad_norm) for s in steps(tmp_path / run)] for run in ("straight", "full")]
    assert curves[0] == curves[1]


def test_a_run_whose_last_checkpoint_has_no_place_has_not_succeeded(text: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"step 6 could not be written .* go on from step 4\. Make room"):
        train(document(text), tmp_path, home, on_record=Full(4))
    limit_files(None)
    assert [record.step for record in saved(tmp_path)] == [2, 4]
    assert train(document(text), tmp_path, home, attempt=2) is RunStatus.SUCCEEDED


def test_while_a_checkpoint_is_not_written_training_goes_on_without_new_ones_and_says_so(
    text: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointing, "PATIENCE_S", 0.5)
    answers = threading.Event()

    class Hanging(FolderStore):
        def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
            if "step-00000002" in name:
                assert answers.wait(60)
            return super().writing(name)

    def answer(record: Record) -> None:
        if isinstance(record, StepRecord) and record.step == 5:
            answers.set()

    spec, folder = parse_spec(document(text)), RunFolder(tmp_path / "hung")
    folder.store = Hanging(folder.path)
    folder.path.mkdir()
    reporter = Reporter(folder, on_record=answer)
    with process_group(spec):
        assert loop.train(spec, folder, home / "data", reporter=reporter) is RunStatus.SUCCEEDED
    reporter.close()
    assert [record.step for record in saved(folder.path)] == [2, 6]
    path = folder.path / "checkpoints" / "step-00000002-a1"
    (detail,) = [alert.detail for alert in alerts(folder.path) if alert.detail.startswith(f"{path}: ")]
    assert "the checkpoint of step 2 is still being written after a wait of 0.5 s. Training goes on" in detail
    train(document(text), tmp_path / "straight", home)
    curves = [[(s.step, s.loss, s.grad_norm) for s in steps(tmp_path / run)] for run in ("straight", "hung")]
    assert curves[0] == curves[1]


def test_an_old_checkpoint_that_cannot_be_removed_is_told_of(text: Path, home: Path, tmp_path: Path) -> None:
    class Stuck(FolderStore):
        def clear(self, folder: str) -> None:
            if "step-00000002" in folder and self.path(folder).exists():
                raise OSError("Device or resource busy")
            super().clear(folder)

    spec, folder = parse_spec(document(text, checkpoint={"every_steps": 2, "keep": 1})), RunFolder(tmp_path)
    folder.store = Stuck(tmp_path)
    reporter = Reporter(folder)
    with process_group(spec):
        assert loop.train(spec, folder, home / "data", reporter=reporter) is RunStatus.SUCCEEDED
    reporter.close()
    told = [alert.detail for alert in alerts(tmp_path) if alert.title == "An old checkpoint cannot be removed"]
    assert told
    assert all("step-00000002-a1: Device or resource busy. Remove it by hand" in detail for detail in told)


def train_until_told_to_end(document: dict[str, object], folder: Path, home: Path, told: int) -> str:
    """Train; the rank `told` has been told to end when its first step begins."""
    stop = StopRequest()
    if dist.get_rank() == told:
        stop.signal = signal.SIGTERM
    return train(document, folder, home, stop=stop).value


@pytest.mark.parametrize("told", [0, 1])
def test_whichever_rank_is_told_to_end_all_end_at_one_checkpoint(
    told: int, text: Path, home: Path, tmp_path: Path
) -> None:
    job = document(text, workers=2, phases=[PHASE | {"steps": 100_000}])
    assert run_on_ranks(2, train_until_told_to_end, job, tmp_path, home, told) == ["PAUSED", "PAUSED"]
    assert [record.step for record in saved(tmp_path)] == [1]
    statuses = [record.status for record in records(tmp_path) if isinstance(record, StatusRecord)]
    assert statuses == [RunStatus.RUNNING, RunStatus.PAUSED]


def test_a_run_that_was_told_to_end_goes_on_to_the_same_bits(text: Path, home: Path, tmp_path: Path) -> None:
    train(document(text), tmp_path / "straight", home)
    stop = StopRequest()
    stop.signal = signal.SIGINT
    assert train(document(text), tmp_path / "paused", home, stop=stop) is RunStatus.PAUSED
    assert train(document(text), tmp_path / "paused", home, attempt=2) is RunStatus.SUCCEEDED
    curves = [[(s.step, s.loss, s.grad_norm) for s in steps(tmp_path / run)] for run in ("straight", "paused")]
    assert curves[0] == curves[1]


def test_told_to_end_at_its_last_step_a_run_has_succeeded(text: Path, home: Path, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    assert train(document(text, phases=[PHASE | {"steps": 1}]), tmp_path, home, stop=stop) is RunStatus.SUCCEEDED


def test_a_checkpoint_that_is_copied_elsewhere_is_gone_on_with(text: Path, home: Path, tmp_path: Path) -> None:
    train(document(text), tmp_path / "first", home)
    shutil.copytree(tmp_path / "first" / "checkpoints", tmp_path / "second" / "checkpoints")
    forget_after(tmp_path / "second", 4)
    train(document(text), tmp_path / "second", home)
    assert [step.step for step in steps(tmp_path / "second")] == [5, 6]


def test_a_checkpoint_names_its_text_and_another_text_does_not_go_on_from_it(
    text: Path, home: Path, tmp_path: Path
) -> None:
    train(document(text), tmp_path / "first", home)
    manifest = json.loads((tmp_path / "first" / "checkpoints" / "step-00000006-a1" / "manifest.json").read_text())
    assert manifest["identity"] in {identity(folder) for folder in (home / "data").iterdir() if folder.is_dir()}
    other = tmp_path / "other.txt"
    other.write_text(text.read_text().replace("moon", "stars"))
    shutil.copytree(tmp_path / "first" / "checkpoints", tmp_path / "second" / "checkpoints")
    difference = r"bert.embeddings.word_embeddings.weight is \[72, 16\] there, and is \[74, 16\] in the job"
    said = rf"step-00000006-a1 was trained on another text, vocabulary or settings: {difference}"
    with pytest.raises(CheckpointError, match=said):
        train(document(other), tmp_path / "second", home)


class Watched(FolderStore):
    """A store that notes, before each manifest of a checkpoint is put, the last step of the journal."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.steps_before: dict[int, int] = {}

    def put(self, name: str, content: bytes) -> None:
        if name.endswith("manifest.json"):
            self.steps_before[json.loads(content)["step"]] = max(each.step for each in steps(self.path("")))
        super().put(name, content)


def test_the_journal_holds_every_step_of_a_checkpoint_before_its_manifest_is_there(
    text: Path, home: Path, tmp_path: Path
) -> None:
    spec, folder, store = parse_spec(document(text)), RunFolder(tmp_path), Watched(tmp_path)
    folder.store = store
    reporter = Reporter(folder)
    with process_group(spec):
        loop.train(spec, folder, home / "data", reporter=reporter)
    reporter.close()
    assert store.steps_before.keys() == {2, 4, 6}
    assert all(last >= step for step, last in store.steps_before.items())
