import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.small_job import PHASE, document
from workers.contract.documents import parse_spec
from workers.contract.manifests import CheckpointManifest, Parent, StoredFile
from workers.contract.problems import SpecError
from workers.contract.run.attempts import begin
from workers.contract.run.branches import branch, named_run
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.spec.job import JobSpec
from workers.contract.spec.start_from import StartFrom

START = StartFrom(run="1qx92r16q7na", step=4)
TWO = [PHASE, PHASE | {"seq_len": 16, "steps": 4}]


def spec(**changes: Any) -> JobSpec:
    return parse_spec(document(Path("/text.txt"), phases=TWO) | {"start_from": START.model_dump()} | changes)


def put_checkpoint(folder: RunFolder, name: CheckpointName) -> None:
    content = f"weights of step {name.step}, attempt {name.attempt}".encode()
    folder.store.put(f"{name.prefix}/__0_0.distcp", content)
    files = {"__0_0.distcp": StoredFile(size_bytes=len(content))}
    manifest = CheckpointManifest(
        step=name.step, attempt=name.attempt, world_size=1, identity="of the text", files=files
    )
    folder.store.put(name.manifest, manifest.model_dump_json().encode())


@pytest.fixture
def parent(tmp_path: Path) -> RunFolder:
    """A run whose third attempt went back from step 6 to step 2, and lost its manifest of step 6."""
    folder = RunFolder(tmp_path / "runs" / START.run)
    folder.put_spec(parse_spec(document(Path("/text.txt"), phases=TWO)))
    for name in (CheckpointName(2, 1), CheckpointName(4, 1), CheckpointName(4, 3), CheckpointName(6, 3)):
        put_checkpoint(folder, name)
    folder.store.delete(CheckpointName(6, 3).manifest)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "branch")


def weights(folder: RunFolder) -> Path:
    (name,) = folder.finished()
    return folder.path / f"{name.prefix}/__0_0.distcp"


def test_a_branch_has_the_newest_checkpoint_of_the_step_as_one_that_is_older_than_its_own(
    parent: RunFolder, folder: RunFolder
) -> None:
    branch(folder, spec(), START, parent)
    assert folder.finished() == [CheckpointName(4, 0)]
    assert weights(folder).read_text() == "weights of step 4, attempt 3"
    manifest = folder.manifest()
    assert (manifest.parent, manifest.identity) == (Parent(run=START.run, step=4), "of the text")
    put_checkpoint(folder, CheckpointName(5, 1))
    assert folder.steps_done() == 5


def test_it_is_the_same_file_and_outlives_the_parents(parent: RunFolder, folder: RunFolder) -> None:
    branch(folder, spec(), START, parent)
    assert weights(folder).stat().st_nlink == 2
    shutil.rmtree(parent.path)
    assert weights(folder).read_text() == "weights of step 4, attempt 3"


@pytest.fixture
def another_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
        yield Path(disk)


def test_on_another_disk_it_is_a_copy(parent: RunFolder, another_disk: Path) -> None:
    assert another_disk.stat().st_dev != parent.path.stat().st_dev
    folder = RunFolder(another_disk / "branch")
    branch(folder, spec(), START, parent)
    assert weights(folder).stat().st_nlink == 1
    assert weights(folder).read_text() == "weights of step 4, attempt 3"


def test_where_the_parents_files_are_links_the_branch_has_what_they_lead_to(
    parent: RunFolder, folder: RunFolder, tmp_path: Path
) -> None:
    file = parent.path / f"{CheckpointName(4, 3).prefix}/__0_0.distcp"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    branch(folder, spec(), START, parent)
    assert not weights(folder).is_symlink()
    assert weights(folder).read_text() == "weights of step 4, attempt 3"


@pytest.mark.parametrize("step", [3, 6])
def test_a_step_that_is_gone_or_not_whole_is_an_error_that_names_those_that_are_there(
    parent: RunFolder, folder: RunFolder, step: int
) -> None:
    with pytest.raises(SpecError, match=rf"start_from\.step = {step}: .* no checkpoint.*a step that it has: 2, 4\.$"):
        branch(folder, spec(), START.model_copy(update={"step": step}), parent)
    assert not folder.path.exists()


def test_a_damaged_checkpoint_is_refused_and_nothing_of_it_stays(parent: RunFolder, folder: RunFolder) -> None:
    parent.store.put(f"{CheckpointName(4, 3).prefix}/__0_0.distcp", b"short")
    with pytest.raises(SpecError, match=r"step = 4: .* __0_0\.distcp has 5 bytes instead of 28.*step that it has: 2"):
        branch(folder, spec(), START, parent)
    assert folder.checkpoints() == []


def test_a_checkpoint_that_lacks_a_file_or_is_of_a_newer_version_is_refused_and_nothing_of_it_stays(
    parent: RunFolder, folder: RunFolder
) -> None:
    (parent.path / f"{CheckpointName(4, 3).prefix}/__0_0.distcp").unlink()
    with pytest.raises(SpecError, match=r"step = 4: this checkpoint cannot be taken: .*No such file.*__0_0\.distcp"):
        branch(folder, spec(), START, parent)
    parent.store.put(CheckpointName(4, 3).manifest, b'{"format": 99}')
    with pytest.raises(SpecError, match=r"step = 4: this checkpoint cannot be taken: .* written by a newer version"):
        branch(folder, spec(), START, parent)
    assert folder.checkpoints() == []


def test_a_disk_that_takes_nothing_is_told_by_name(parent: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "branch").mkdir()
    (tmp_path / "branch" / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(SpecError, match=r"step = 4: this checkpoint cannot be taken: .*checkpoints"):
        branch(RunFolder(tmp_path / "branch"), spec(), START, parent)


def test_a_run_that_is_not_there_is_named(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"start_from\.run = '1qx92r16q7na': there is no run in .*the path of a run"):
        branch(folder, spec(), START, named_run(START, tmp_path))


def test_a_run_whose_specification_cannot_be_read_is_named_with_the_reason(
    parent: RunFolder, folder: RunFolder
) -> None:
    parent.store.put("spec.yaml", b"name: 7")
    with pytest.raises(
        SpecError, match=r"start_from\.run = '1qx92r16q7na': its specification cannot be read: name = 7"
    ):
        branch(folder, spec(), START, parent)


def test_a_run_is_named_by_its_id_or_by_a_path(tmp_path: Path) -> None:
    assert named_run(START, tmp_path).path == tmp_path / START.run
    elsewhere = START.model_copy(update={"run": "/elsewhere/run"})
    assert named_run(elsewhere, tmp_path).path == Path("/elsewhere/run")
    with pytest.raises(SpecError, match=r"start_from\.run = 'runs/demo': is a relative path"):
        named_run(StartFrom(run="runs/demo", step=4), tmp_path)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"seed": 1}, {"seed"}),
        ({"model": document(Path())["model"] | {"layers": 3, "dropout": 0.1}}, {"model.layers", "model.dropout"}),
        ({"data": {"corpus": ["/other.txt"], "vocab": 90}}, {"data.corpus"}),
        (
            {"phases": [PHASE | {"seq_len": 16, "global_batch_size": 16}, TWO[1]]},
            {"[0].seq_len", "[0].global_batch_size"},
        ),
        ({"phases": [PHASE | {"steps": 3}, TWO[1]]}, {"[0].steps"}),
    ],
)
def test_what_has_begun_and_what_the_weights_are_for_cannot_be_set_and_is_refused_by_name(
    changes: dict[str, Any], fields: set[str], parent: RunFolder, folder: RunFolder
) -> None:
    with pytest.raises(SpecError, match="cannot be set in a branch after step 4") as caught:
        branch(folder, spec(**changes), START, parent)
    assert {problem.field.removeprefix("phases") for problem in caught.value.problems} == fields
    assert not folder.path.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other", "labels": {"why": "diverged"}, "optimizer": {"weight_decay": 0.5}},
        {"phases": [PHASE | {"lr": 1e-4, "warmup": 0.1, "micro_batch_size": 4}, TWO[1]]},
        {"phases": [PHASE | {"steps": 4}, TWO[1] | {"seq_len": 8, "global_batch_size": 16, "steps": 9}]},
        {"phases": [PHASE]},
        {"parallel": {"workers": 2, "zero_stage": 3}, "checkpoint": {"keep": 1}},
    ],
)
def test_all_else_may_be_set(changes: dict[str, Any], parent: RunFolder, folder: RunFolder) -> None:
    branch(folder, spec(**changes), START, parent)
    assert folder.steps_done() == 4


def test_the_steps_of_a_phase_that_is_over_cannot_be_set(parent: RunFolder, folder: RunFolder) -> None:
    put_checkpoint(parent, CheckpointName(8, 3))
    start = START.model_copy(update={"step": 8})
    with pytest.raises(SpecError, match=r"phases\[0\]\.steps = 9: cannot be set"):
        branch(folder, spec(phases=[PHASE | {"steps": 9}, TWO[1]]), start, parent)
    branch(folder, spec(phases=[PHASE, TWO[1] | {"steps": 3, "lr": 1e-4}]), start, parent)


def test_what_has_no_effect_because_its_phase_is_over_is_refused_by_name(parent: RunFolder, folder: RunFolder) -> None:
    put_checkpoint(parent, CheckpointName(8, 3))
    start, late = START.model_copy(update={"step": 8}), PHASE | {"lr": 1e-4, "decay": {"kind": "cosine"}}
    with pytest.raises(SpecError, match="has no effect in a branch after step 8") as caught:
        branch(folder, spec(phases=[late, TWO[1] | {"lr": 1e-4}]), start, parent)
    assert [problem.field for problem in caught.value.problems] == ["phases[0].lr", "phases[0].decay.kind"]
    # Of a phase that gets more steps, it has an effect.
    branch(folder, spec(phases=[late | {"steps": 12}]), START, parent)


def test_a_branch_that_has_no_step_left_is_refused(parent: RunFolder, folder: RunFolder) -> None:
    with pytest.raises(SpecError, match=r"start_from\.step = 4: the job has 4 steps, so that none is left"):
        branch(folder, spec(phases=[PHASE | {"steps": 4}]), START, parent)


def test_an_attempt_takes_the_checkpoint_once_and_later_ones_keep_what_is_there(
    parent: RunFolder, folder: RunFolder
) -> None:
    begin(folder, spec(), parent.path.parent)
    folder.lock.release()
    put_checkpoint(folder, CheckpointName(5, 1))
    shutil.rmtree(parent.path)
    assert begin(folder, spec(), parent.path.parent).attempt == 2
    assert folder.finished() == [CheckpointName(4, 0), CheckpointName(5, 1)]
    assert folder.manifest().parent == Parent(run=START.run, step=4)
    folder.lock.release()


def test_a_branch_that_cannot_begin_leaves_its_folder_free(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no run"):
        begin(folder, spec(), tmp_path)
    assert folder.lock.held_by() is None
