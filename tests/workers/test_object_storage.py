"""Runs whose checkpoints are on an S3 server: all that holds of those in a folder holds of them."""

import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import torch
from transformers import BertForPreTraining

from tests.ranks import run_on_ranks
from tests.workers.object_store import S3, nothing
from tests.workers.small_job import PHASE, document, four_steps
from tests.workers.training.running import records, steps, train
from workers.checkpoints.errors import CheckpointError, DamagedError
from workers.checkpoints.load import check, committed
from workers.checkpoints.to_transformers import export
from workers.checkpoints.weights import read_weights, silent
from workers.contract.arguments import read_arguments
from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError
from workers.contract.records import AlertRecord, CheckpointRecord, Record, RunStatus, StepRecord
from workers.contract.run.branches import branch
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.run.lock import SupersededError
from workers.contract.run.remote import StorageError
from workers.contract.run.storage import keep
from workers.contract.spec.start_from import StartFrom
from workers.ranks import process_group
from workers.training.alone import run as run_alone
from workers.training.safety.signals import StopRequest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the text of these tests is prepared once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def run(tmp_path: Path, bucket: str) -> RunFolder:
    """A run that has not begun, to be stored in the bucket."""
    keep(tmp_path / "run", f"{bucket}/runs/run")
    return RunFolder(tmp_path / "run")


USUAL = ["The vocabulary has 72 tokens, 90 were asked for"]


def curve(folder: Path) -> list[tuple[int, float | None, float | None]]:
    return [(step.step, step.loss, step.grad_norm) for step in steps(folder)]


def prefixes(run: RunFolder) -> list[str]:
    return [name.prefix.removeprefix("checkpoints/") for name in run.checkpoints()]


def damage(run: RunFolder, name: str) -> None:
    content = bytearray(run.store.read(name))
    content[len(content) // 2] ^= 1
    run.store.put(name, bytes(content))


def alerts(folder: Path) -> list[AlertRecord]:
    return [record for record in records(folder) if isinstance(record, AlertRecord) and record.title not in USUAL]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_run_takes_the_same_steps_and_its_checkpoints_hold_the_same_bits(
    asynchronous: bool, text: Path, home: Path, tmp_path: Path, run: RunFolder
) -> None:
    job = four_steps(text, checkpoint={"every_steps": 2, "asynchronous": asynchronous})
    train(job, tmp_path / "folder", home)
    train(job, run.path, home)
    assert curve(run.path) == curve(tmp_path / "folder")
    assert prefixes(run) == ["step-00000002-a1", "step-00000004-a1"]
    assert not (run.path / "checkpoints").exists()
    name = committed(run)[-1]
    here, there = (read_weights(each, name, silent) for each in (RunFolder(tmp_path / "folder"), run))
    assert here.keys() == there.keys()
    assert all(torch.equal(here[key], there[key]) for key in here)
    saved = [record for record in records(run.path) if isinstance(record, CheckpointRecord)]
    assert saved[-1].path == f"{run.storage}/checkpoints/step-00000004-a1"
    assert saved[-1].kept == [f"{run.storage}/checkpoints/{each}" for each in prefixes(run)]


def test_a_run_goes_on_to_the_same_bits_on_a_machine_that_has_nothing_of_it(
    text: Path, home: Path, tmp_path: Path, run: RunFolder
) -> None:
    train(document(text), tmp_path / "straight", home)
    first, second = run, RunFolder(tmp_path / "second", run.storage)
    assert first.begin() == 1
    train(document(text), first.path, home)
    first.lock.release()
    first.store.delete(CheckpointName(6, 1).manifest)  # as if it had been killed there
    assert second.begin() == 2
    assert train(document(text), second.path, home, attempt=2) is RunStatus.SUCCEEDED
    second.lock.release()
    assert prefixes(second) == ["step-00000002-a1", "step-00000004-a1", "step-00000006-a2"]
    numbers = [record.step for record in records(second.path) if isinstance(record, StepRecord)]
    assert numbers == [1, 2, 3, 4, 5, 6, 5, 6]  # the journal came with the checkpoints
    assert curve(second.path) == curve(tmp_path / "straight")


def test_only_those_stay_that_the_specification_keeps(text: Path, home: Path, run: RunFolder) -> None:
    data = {"corpus": [str(text)], "vocab": 90, "validation": 0.2}
    checkpoint = {"every_steps": 1, "keep": 1, "keep_every": 3}
    train(document(text, checkpoint=checkpoint, evaluation={"every_steps": 2}) | {"data": data}, run.path, home)
    assert prefixes(run) == ["step-00000003-a1", "step-00000006-a1"]


def test_after_a_damaged_checkpoint_the_run_goes_on_from_the_one_before(
    text: Path, home: Path, tmp_path: Path, run: RunFolder
) -> None:
    train(document(text), tmp_path / "straight", home)
    train(document(text), run.path, home)
    damage(run, f"{CheckpointName(6, 1).prefix}/__0_0.distcp")
    assert train(document(text), run.path, home, attempt=2) is RunStatus.SUCCEEDED
    (alert,) = alerts(run.path)
    assert "step-00000006-a1: __0_0.distcp has the sha256" in alert.detail
    assert "goes on from step 4" in alert.detail
    assert curve(run.path) == curve(tmp_path / "straight")


@pytest.mark.usefixtures("s3")
def test_a_store_that_cannot_be_read_is_no_damage(text: Path, home: Path, s3: S3, run: RunFolder) -> None:
    train(four_steps(text), run.path, home)
    s3.refuses = lambda method, path: method == "GET" and path.endswith("step-00000004-a1/__0_0.distcp")
    with process_group(parse_spec(document(text))), pytest.raises(StorageError, match="The bucket is full"):
        check(run, CheckpointName(4, 1))
    with pytest.raises(StorageError):
        train(four_steps(text), run.path, home, attempt=2)
    s3.refuses = nothing
    damage(run, f"{CheckpointName(4, 1).prefix}/.metadata")
    with process_group(parse_spec(document(text))), pytest.raises(DamagedError):
        check(run, CheckpointName(4, 1))


class Full:
    """A bucket that takes nothing any more once a checkpoint was written, until an alert has told of it."""

    def __init__(self, s3: S3, after: int) -> None:
        self._s3, self._after = s3, after

    def __call__(self, record: Record) -> None:
        if isinstance(record, CheckpointRecord) and record.step == self._after:
            self._s3.refuses = lambda method, path: method in {"PUT", "POST"} and path.endswith(".distcp")
        if isinstance(record, AlertRecord) and record.level == "error":
            self._s3.refuses = nothing


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_checkpoint_that_the_store_does_not_take_is_left_out_and_training_goes_on(
    asynchronous: bool, text: Path, home: Path, s3: S3, run: RunFolder
) -> None:
    job = document(text, checkpoint={"every_steps": 2, "keep": 1, "asynchronous": asynchronous})
    assert train(job, run.path, home, on_record=Full(s3, after=2)) is RunStatus.SUCCEEDED
    (alert,) = alerts(run.path)
    assert alert.title == "A checkpoint could not be written"
    assert f"step 4 could not be written to {run.storage}/checkpoints/step-00000004-a1: rank 0: " in alert.detail
    assert "The bucket is full" in alert.detail
    assert "would go on from step 2. Have the store answer and take objects again" in alert.detail
    assert [r.step for r in records(run.path) if isinstance(r, CheckpointRecord)] == [2, 6]
    assert prefixes(run) == ["step-00000006-a1"]


def test_where_the_store_does_not_take_the_last_checkpoint_the_run_has_not_succeeded(
    text: Path, home: Path, s3: S3, run: RunFolder
) -> None:
    with pytest.raises(CheckpointError, match=r"step 6 could not be written .* go on from step 4\. Have the store"):
        train(document(text), run.path, home, on_record=Full(s3, after=4))
    s3.refuses = nothing
    assert train(document(text), run.path, home, attempt=2) is RunStatus.SUCCEEDED


def test_where_the_older_checkpoints_cannot_be_listed_they_stay_and_training_goes_on(
    text: Path, home: Path, s3: S3, run: RunFolder
) -> None:
    def on_record(record: Record) -> None:
        if isinstance(record, StepRecord) and record.step == 3:
            s3.refuses = lambda method, path: method == "GET" and path.endswith("a1/manifest.json")
        if isinstance(record, AlertRecord) and record.title not in USUAL:
            s3.refuses = nothing

    job = document(text, checkpoint={"every_steps": 2, "keep": 1})
    assert train(job, run.path, home, on_record=on_record) is RunStatus.SUCCEEDED
    assert [alert.title for alert in alerts(run.path)] == ["The older checkpoints could not be looked at"]
    assert prefixes(run) == ["step-00000006-a1"]


def test_an_attempt_on_another_machine_is_over_when_a_newer_one_has_begun(
    text: Path, home: Path, tmp_path: Path, run: RunFolder
) -> None:
    assert run.begin() == 1
    train(four_steps(text), run.path, home)
    newer = RunFolder(tmp_path / "newer", run.storage)
    assert newer.begin() == 2
    found = newer.finished()
    with pytest.raises(SupersededError, match=f"{run.storage} belongs to attempt 2: attempt 1 is over"):
        run.check(1)
    with pytest.raises(SupersededError, match="attempt 1 is over"):
        train(document(text, phases=[PHASE]), run.path, home)
    late = CheckpointName(5, 1)
    run.store.put(late.manifest, run.store.read(CheckpointName(4, 1).manifest))  # it was stopped before this
    assert (newer.finished(), newer.late()) == (found, [late])
    for folder in (run, newer):
        folder.lock.release()


@pytest.mark.parametrize("theirs", ["bucket", "folder"])
def test_a_branch_goes_on_from_a_checkpoint_in_a_bucket_or_in_a_folder(
    theirs: str, text: Path, home: Path, tmp_path: Path, run: RunFolder, bucket: str
) -> None:
    parent = run if theirs == "bucket" else RunFolder(tmp_path / "parent")
    spec, start = parse_spec(document(text)), StartFrom(run=str(parent.path), step=4)
    parent.put_spec(spec)
    train(document(text), parent.path, home)
    ours = tmp_path / "branch"
    keep(ours, f"{bucket}/runs/branch")
    branch(RunFolder(ours), spec, start, parent)
    parent.store.clear("checkpoints")
    assert RunFolder(ours).store.list("checkpoints")[0].startswith("checkpoints/step-00000004/")
    train(document(text), ours, home)
    assert [step.step for step in steps(ours)] == [5, 6]


def test_a_model_is_exported_from_a_bucket_and_the_export_is_kept_there(
    text: Path, home: Path, tmp_path: Path, run: RunFolder
) -> None:
    job = four_steps(text, export={"at_end": True})
    run.put_spec(parse_spec(job))
    train(job, run.path, home)
    assert "export/manifest.json" in run.store.list()
    assert run.store.read("export/model.safetensors") == (run.export / "model.safetensors").read_bytes()
    exported = export(run, run.spec(), tmp_path / "exported", home / "data", step=2)
    assert BertForPreTraining.from_pretrained(exported.path).config.hidden_size == 16


def train_with(
    environment: dict[str, str], job: dict[str, object], folder: Path, home: Path, attempt: int
) -> list[tuple[int, float | None, float | None]]:
    """Train as one of several ranks, which find the server by this environment."""
    os.environ |= environment
    train(job, folder, home, attempt=attempt)
    return curve(folder)


def test_two_workers_write_what_one_and_two_go_on_from(
    text: Path, home: Path, tmp_path: Path, s3: S3, run: RunFolder
) -> None:
    job = document(text, workers=2, parallel={"workers": {"min": 1, "max": 2}, "zero_stage": 2})
    straight, _ = run_on_ranks(2, train_with, s3.environment, job, tmp_path / "straight", home, 1)
    run_on_ranks(2, train_with, s3.environment, job, run.path, home, 1)
    assert sorted(run.store.list(CheckpointName(4, 1).prefix)) == [
        f"{CheckpointName(4, 1).prefix}/{name}"
        for name in (".metadata", "__0_0.distcp", "__1_0.distcp", "manifest.json")
    ]
    run.store.delete(CheckpointName(6, 1).manifest)
    again, _ = run_on_ranks(2, train_with, s3.environment, job, run.path, home, 2)
    assert again == straight
    for attempt in (1, 2):
        run.store.delete(CheckpointName(6, attempt).manifest)
    train(job, run.path, home, attempt=3)
    for (step, loss, _), (_, expected, _) in zip(curve(run.path), straight, strict=True):
        assert loss == pytest.approx(expected, rel=1e-5), step


@pytest.mark.parametrize("fails_on", [0, 1])
def test_where_one_workers_upload_fails_none_waits_for_it(
    fails_on: int, text: Path, home: Path, s3: S3, run: RunFolder
) -> None:
    s3.refuses = lambda method, path: method in {"PUT", "POST"} and f"step-00000002-a1/__{fails_on}" in path
    run_on_ranks(2, train_with, s3.environment, document(text, workers=2), run.path, home, 1)
    (alert,) = alerts(run.path)
    assert f"step-00000002-a1: rank {fails_on}: " in alert.detail
    assert prefixes(run) == ["step-00000004-a1", "step-00000006-a1"]


def test_the_command_line_names_the_storage_once_and_the_run_remembers_it(
    text: Path, tmp_path: Path, s3: S3, bucket: str
) -> None:
    spec = tmp_path / "job.json"
    spec.write_text(parse_spec(four_steps(text)).model_dump_json())
    command = [sys.executable, "-m", "workers.train", str(spec), "--run", str(tmp_path / "demo")]
    environment = os.environ | s3.environment | {"BIGBATCH_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        [*command, "--storage", f"{bucket}/runs"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    name = bucket.removeprefix("s3://")
    found = {each["Key"] for each in boto3.client("s3").list_objects_v2(Bucket=name)["Contents"]}
    assert "runs/demo/checkpoints/step-00000004-a1/manifest.json" in found
    assert {f"runs/demo/{name}" for name in ("run.json", "spec.yaml", "events.jsonl")} <= found
    assert read_arguments(command[3:]).storage == f"{bucket}/runs/demo"
    with pytest.raises(SpecError, match=rf"is stored in {bucket}/runs/demo\. Remedy: leave it out"):
        read_arguments([*command[3:], "--storage", "s3://no-such-bucket"])


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_told_of_in_a_sentence(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "job.json"
    spec.write_text(parse_spec(four_steps(text)).model_dump_json())
    assert run_alone([str(spec), "--run", str(tmp_path / "demo"), "--storage", "s3://no-such"], StopRequest()) == 2
    said = capsys.readouterr().err
    assert said.startswith("s3://no-such/demo/")
    assert said.endswith("check the name of the bucket, and make it if it is not there\n")


def test_a_run_that_was_killed_leaves_nothing_that_counts(text: Path, home: Path, run: RunFolder) -> None:
    train(document(text), run.path, home)
    run.store.put("checkpoints/step-00000007-a1/__0_0.distcp", b"half")
    forgotten = [name for name in run.checkpoints() if name not in run.finished()]
    assert forgotten == [CheckpointName(7, 1)]
    assert train(document(text, phases=[PHASE, PHASE]), run.path, home, attempt=2) is RunStatus.SUCCEEDED
    assert CheckpointName(7, 1) not in run.checkpoints()
