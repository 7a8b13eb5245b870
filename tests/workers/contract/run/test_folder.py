import json
from pathlib import Path

import pytest
import yaml

from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.contract.manifests import RunManifest, UnknownFormatError
from workers.contract.push import ControlPlane
from workers.contract.run.folder import CheckpointName, RunFolder, RunFolderError


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_the_specification_is_kept_as_yaml_and_read_back_as_the_same_object(folder: RunFolder) -> None:
    spec = parse_spec(document(Path("/text.txt"), labels={"who": "Zoë"}))
    assert not folder.has_spec()
    folder.put_spec(spec)
    text = (folder.path / "spec.yaml").read_text()
    assert text.startswith("name: loop\n")
    assert "who: Zoë" in text
    assert parse_spec(yaml.safe_load(text)) == folder.spec() == spec


def test_a_specification_that_an_older_version_kept_as_json_is_the_same_object(folder: RunFolder) -> None:
    spec = parse_spec(document(Path("/text.txt")))
    folder.store.put("spec.yaml", spec.model_dump_json(indent=2).encode())
    assert folder.spec() == spec


def test_a_control_plane_is_kept_and_none_is_no_error(folder: RunFolder) -> None:
    assert not folder.has_control()
    control = ControlPlane(url="http://127.0.0.1:1/v1/jobs/a/events", token="secret")
    folder.put_control(control)
    assert (folder.has_control(), folder.control()) == (True, control)


def test_a_folder_without_run_json_is_new_or_of_an_older_version(folder: RunFolder) -> None:
    assert folder.manifest() == RunManifest(identity=None, attempt=0)


def test_what_is_written_to_run_json_is_read_back_with_its_format_numbers(folder: RunFolder) -> None:
    folder.put_manifest(RunManifest(identity="ab" * 32, attempt=3))
    assert folder.manifest() == RunManifest(format=1, journal_format=2, identity="ab" * 32, attempt=3)


@pytest.mark.parametrize("field", ["format", "journal_format"])
def test_a_folder_of_a_newer_version_is_refused_by_name(field: str, folder: RunFolder) -> None:
    folder.store.put("run.json", json.dumps({field: 99, "identity": {"something": "new"}}).encode())
    with pytest.raises(UnknownFormatError, match=rf"run\.json has {field} 99.*newer version"):
        folder.manifest()


def test_a_run_json_that_cannot_be_read_is_named(folder: RunFolder) -> None:
    folder.store.put("run.json", b"\0\0\0\n")
    with pytest.raises(RunFolderError, match=r"run\.json cannot be read"):
        folder.manifest()


@pytest.mark.parametrize("number", ["9", True, 1.5])
def test_a_format_number_that_is_none_is_not_taken_for_one_that_is_known(number: object, folder: RunFolder) -> None:
    folder.store.put("run.json", json.dumps({"format": number}).encode())
    with pytest.raises(RunFolderError, match=r"run\.json cannot be read"):
        folder.manifest()


def test_checkpoints_are_found_in_order_with_those_that_an_older_version_named(folder: RunFolder) -> None:
    for name in ("step-00000010-a2", "step-00000004", "step-00000010-a1", "notes"):
        folder.store.put(f"checkpoints/{name}/manifest.json", b"{}")
    found = folder.checkpoints()
    assert found == [CheckpointName(4, 0), CheckpointName(10, 1), CheckpointName(10, 2)]
    assert [name.manifest for name in found[:2]] == [
        "checkpoints/step-00000004/manifest.json",
        "checkpoints/step-00000010-a1/manifest.json",
    ]


@pytest.mark.parametrize(
    "stray", ["step-5-a1", "step-00000005-a0", "step-00000005-a01", "step-\u0660000000\u0665", "old"]
)
def test_a_folder_whose_name_is_almost_that_of_a_checkpoint_is_none(stray: str, folder: RunFolder) -> None:
    folder.store.put(f"checkpoints/{stray}/manifest.json", b"{}")
    folder.store.put("checkpoints/notes.txt", b"mine")
    assert folder.checkpoints() == []


def test_a_checkpoint_that_was_moved_to_another_disk_and_linked_is_found(folder: RunFolder, tmp_path: Path) -> None:
    name = CheckpointName(5, 1)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "manifest.json").write_text("{}")
    (folder.path / "checkpoints").mkdir(parents=True)
    (folder.path / name.prefix).symlink_to(moved, target_is_directory=True)
    assert folder.checkpoints() == [name]
