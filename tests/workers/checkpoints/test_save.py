import hashlib
import json
import resource
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from optim import Lamb
from tests.ranks import run_on_ranks
from tests.workers.checkpoints.trained import draft, trained, write
from workers.checkpoints.save import save, state_of
from workers.contract.manifests import CheckpointManifest
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.run.lock import SupersededError

pytestmark = pytest.mark.usefixtures("alone")


def manifest(folder: Path) -> CheckpointManifest:
    path = folder / "manifest.json"
    return CheckpointManifest.parse(path, path.read_bytes())


def test_the_folder_is_named_by_step_and_attempt(tmp_path: Path) -> None:
    saved = save(RunFolder(tmp_path), draft(2, attempt=3), state_of(*trained()))
    folder = tmp_path / "checkpoints" / "step-00000002-a3"
    assert saved.place == str(folder)
    assert saved.size_bytes == sum(path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json")


def test_the_manifest_holds_the_sha256_of_every_file(tmp_path: Path) -> None:
    model, optimizer = trained()
    known = {"identity": "abc", "samples_format": 2, "is_sound": False, "best_loss": 1.5, "tokens": 900, "seconds": 2.5}
    path = Path(save(RunFolder(tmp_path), draft(7, 2, **known), state_of(model, optimizer)).place)
    found = json.loads((path / "manifest.json").read_text())
    assert {key: value for key, value in found.items() if key != "files"} == {
        "format": 2,
        "step": 7,
        "world_size": 1,
        "attempt": 2,
        "identity": "abc",
        "samples_format": 2,
        "is_sound": False,
        "best_loss": 1.5,
        "evaluation": None,
        "tokens": 900,
        "seconds": 2.5,
    }
    assert found["files"] == {
        file.name: {"size_bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in path.iterdir()
        if file.name != "manifest.json"
    }
    assert sorted(found["files"]) == [".metadata", "__0_0.distcp"]


def test_the_manifest_is_written_last(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    times = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    assert max(times, key=times.__getitem__) == "manifest.json"


def test_torchs_own_tools_read_the_checkpoint(tmp_path: Path) -> None:
    model, _ = trained()
    dcp_to_torch_save(write(tmp_path, 1), tmp_path / "weights.pt")
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)["model"]
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_what_a_killed_writer_left_of_the_same_attempt_is_written_anew(tmp_path: Path) -> None:
    left = tmp_path / "checkpoints" / "step-00000001-a1"
    left.mkdir(parents=True)
    (left / "left.distcp").write_bytes(b"half")
    assert "left.distcp" not in manifest(write(tmp_path, 1)).files
    assert not (left / "left.distcp").exists()


def test_another_attempts_checkpoint_of_the_same_step_is_left_alone(tmp_path: Path) -> None:
    first = write(tmp_path, 1, attempt=1)
    before = {file.name: file.read_bytes() for file in first.iterdir()}
    write(tmp_path, 1, attempt=2, seed=1)
    assert {file.name: file.read_bytes() for file in first.iterdir()} == before


def test_where_the_disk_is_full_the_error_names_the_checkpoint_and_what_was_written_is_removed(tmp_path: Path) -> None:
    write(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    model, optimizer = trained()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # no file may grow beyond 1000 bytes
    try:
        with pytest.raises(
            OSError, match=r"step 2 could not be written to .*step-00000002-a1: rank 0: .*File too large"
        ):
            save(RunFolder(tmp_path), draft(2), state_of(model, optimizer))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001-a1"]


def test_a_checkpoint_is_removed_with_what_was_left_half_written_in_it(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    (path / ".draft-__0_0.distcp.1234").write_bytes(b"half")
    RunFolder(tmp_path).remove_checkpoint(CheckpointName(1, 1))
    assert not path.exists()


def save_on_each_rank(path: Path, fails_on: int) -> str:
    """Save a model that is sharded over the ranks, where one of them can write no file; return the error."""
    model, _ = trained()
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = Lamb(model.named_parameters(), lr=0.1)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if dist.get_rank() == fails_on:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        save(RunFolder(path), draft(1), state_of(model, optimizer))
    except OSError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    return ""


@pytest.mark.parametrize("fails_on", [0, 1])
def test_where_one_rank_cannot_write_all_ranks_say_which_and_nothing_is_left(fails_on: int, tmp_path: Path) -> None:
    first, second = run_on_ranks(2, save_on_each_rank, tmp_path, fails_on)
    assert first == second
    assert f"rank {fails_on}: " in first
    assert not list((tmp_path / "checkpoints").iterdir())


def test_what_must_be_done_before_the_manifest_is_done_when_the_files_are_there(tmp_path: Path) -> None:
    found: list[list[str]] = []
    folder, (model, optimizer) = RunFolder(tmp_path), trained()
    save(folder, draft(1), state_of(model, optimizer), before_commit=lambda: found.append(folder.store.list()))
    assert found == [["checkpoints/step-00000001-a1/.metadata", "checkpoints/step-00000001-a1/__0_0.distcp"]]


def test_an_attempt_that_is_over_commits_nothing_and_removes_nothing(tmp_path: Path) -> None:
    write(tmp_path, 1)
    folder, (model, optimizer) = RunFolder(tmp_path), trained()
    with pytest.raises(SupersededError, match="attempt 1 is over"):
        save(folder, draft(2), state_of(model, optimizer), before_commit=lambda: folder.take_over(2))
    folder.lock.release()
    assert folder.finished() == [CheckpointName(1, 1)]


def test_where_the_manifest_cannot_be_put_the_error_says_why(tmp_path: Path) -> None:
    folder, (model, optimizer) = RunFolder(tmp_path), trained()
    with pytest.raises(OSError, match=r"step 2 could not be written to .*step-00000002-a1: .*Is a directory"):
        save(
            folder,
            draft(2),
            state_of(model, optimizer),
            before_commit=(tmp_path / CheckpointName(2, 1).manifest).mkdir,
        )
    assert folder.finished() == []
