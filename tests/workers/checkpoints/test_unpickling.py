"""Each place in a checkpoint that a pickle can hide in, with one that would leave a file behind."""

import io
import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import metadata as described
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.state_dict_loader import load as torch_load

from tests.workers.checkpoints.trained import trained, write, write_format_1
from workers.checkpoints.errors import CheckpointError, DamagedError
from workers.checkpoints.load import load_newest
from workers.checkpoints.save import state_of
from workers.checkpoints.unpickling import METADATA, read_metadata
from workers.contract.run.folder import RunFolder
from workers.contract.run.store import FolderStore

pytestmark = pytest.mark.usefixtures("alone")


def metadata_in(folder: Path, files: list[str]) -> described.Metadata:
    return read_metadata(FolderStore(folder.parent), folder.name, files)


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch '{self._mark}'",)


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Change a file, and the manifest so that it fits: whoever sends a checkpoint writes both."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["format"]
    manifest["sizes_bytes"] = {file: (folder / file).stat().st_size for file in manifest.pop("files")}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def in_the_metadata(folder: Path, attack: Attack) -> None:
    rewrite(folder, METADATA, pickle.dumps(attack))


def inside_the_metadata(folder: Path, attack: Attack) -> None:
    metadata = pickle.loads((folder / METADATA).read_bytes())  # noqa: S301 -- written by this test
    metadata.planner_data = {"model": attack}
    rewrite(folder, METADATA, pickle.dumps(metadata))


def entry(folder: Path, key: str) -> _StorageInfo:
    """Return where a checkpoint holds the value of a key."""
    metadata = pickle.loads((folder / METADATA).read_bytes())  # noqa: S301 -- written by this test
    (found,) = (stored for index, stored in metadata.storage_data.items() if index.fqn == key)
    assert isinstance(found, _StorageInfo)
    return found


def replace_entry(folder: Path, key: str, attack: Attack) -> None:
    """Put an attack at the end of the file of tensors, and have the metadata name it for this key."""
    saved = io.BytesIO()
    torch.save(attack, saved)
    file = folder / entry(folder, key).relative_path
    metadata = pickle.loads((folder / METADATA).read_bytes())  # noqa: S301 -- written by this test
    for index, stored in metadata.storage_data.items():
        if index.fqn == key:
            stored.offset, stored.length = file.stat().st_size, len(saved.getvalue())
    (folder / METADATA).write_bytes(pickle.dumps(metadata))
    rewrite(folder, file.name, file.read_bytes() + saved.getvalue())


def in_a_setting(folder: Path, attack: Attack) -> None:
    replace_entry(folder, "optimizer.param_groups.0.lr", attack)


def in_a_tensor(folder: Path, attack: Attack) -> None:
    replace_entry(folder, "model.0.weight", attack)


ATTACKS = [in_the_metadata, inside_the_metadata, in_a_setting, in_a_tensor]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_a_checkpoint_is_run(attack: Callable[[Path, Attack], None], tmp_path: Path) -> None:
    mark = tmp_path / "was run"
    folder = write(tmp_path, 1)
    attack(folder, Attack(mark))
    with pytest.raises(CheckpointError, match="is not loaded") as refused:
        load_newest(RunFolder(tmp_path), *trained())
    assert "weights_only" not in str(refused.value)
    assert not mark.exists()


@pytest.mark.parametrize("attack", [in_the_metadata, inside_the_metadata, in_a_setting])
def test_torchs_own_reader_would_run_it(attack: Callable[[Path, Attack], None], tmp_path: Path) -> None:
    mark = tmp_path / "was run"
    folder = write(tmp_path, 1)
    attack(folder, Attack(mark))
    with suppress(CheckpointException):
        torch_load(state_of(*trained()), checkpoint_id=folder)
    assert mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        ("builtins", "eval"),
        ("posix", "system"),
        ("torch", "load"),
        ("torch.serialization", "load"),
        ("torch.distributed.checkpoint.metadata", "os"),
        ("torch.distributed.checkpoint.metadata", "Metadata.__init__"),
        ("torch.distributed.checkpoint.metadata", "os.system"),
        ("workers.checkpoints.unpickling", "read_metadata"),
    ],
)
def test_the_metadata_can_name_nothing_but_the_classes_that_describe_a_checkpoint(
    name: tuple[str, str], tmp_path: Path
) -> None:
    module, attribute = (part.encode() for part in name)
    short = b"\x8c"
    (tmp_path / METADATA).write_bytes(
        b"\x80\x04" + short + bytes([len(module)]) + module + short + bytes([len(attribute)]) + attribute + b"\x93."
    )
    with pytest.raises(DamagedError, match="which describes no checkpoint"):
        metadata_in(tmp_path, [])


class Debians(pickle.Pickler):
    """Pickles the members of enumerations as Python 3.11.2 does."""

    def reducer_override(self, value: object) -> Any:
        return (getattr, (type(value), value.name)) if isinstance(value, Enum) else NotImplemented


def test_metadata_is_read_whose_enumerations_another_python_pickled(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    metadata = pickle.loads((folder / METADATA).read_bytes())  # noqa: S301 -- written by this test
    with (folder / METADATA).open("wb") as file:
        Debians(file).dump(metadata)
    assert b"getattr" in (folder / METADATA).read_bytes()
    files = [stored.relative_path for stored in metadata.storage_data.values()]
    assert metadata_in(folder, files).state_dict_metadata == metadata.state_dict_metadata


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (described.Metadata, "__init__"),
        (described.TensorProperties, "__init__"),
        (described._MEM_FORMAT_ENCODING, "mro"),
    ],
)
def test_no_attribute_can_be_named_but_the_members_of_the_enumeration(kind: type, name: str, tmp_path: Path) -> None:
    class Attribute:
        def __reduce__(self) -> tuple[Any, ...]:
            return getattr, (kind, name)

    (tmp_path / METADATA).write_bytes(pickle.dumps(Attribute()))
    with pytest.raises(DamagedError, match=f"names {name} of .*, which describes no checkpoint"):
        metadata_in(tmp_path, [])


@pytest.mark.parametrize("value", [None, {"a": 1}, described.Metadata({}), described.StorageMeta()])
def test_a_pickle_of_something_else_is_no_metadata(value: object, tmp_path: Path) -> None:
    (tmp_path / METADATA).write_bytes(pickle.dumps(value))
    with pytest.raises(DamagedError, match="does not describe a checkpoint"):
        metadata_in(tmp_path, [])


@pytest.mark.parametrize("name", ["../../other/__0_0.distcp", "/etc/passwd", "__1_0.distcp", ""])
def test_metadata_that_names_another_file_is_refused(name: str, tmp_path: Path) -> None:
    metadata = described.Metadata({}, storage_data={described.MetadataIndex("w"): _StorageInfo(name, 0, 1)})
    (tmp_path / METADATA).write_bytes(pickle.dumps(metadata))
    with pytest.raises(DamagedError, match="names a file that the manifest does not"):
        metadata_in(tmp_path, ["__0_0.distcp"])


def test_the_metadata_of_each_format_is_read_whole(tmp_path: Path) -> None:
    for folder in (write(tmp_path, 1), write_format_1(tmp_path, 2)):
        expected = pickle.loads((folder / METADATA).read_bytes())  # noqa: S301 -- written by this test
        found = metadata_in(folder, ["__0_0.distcp"])
        assert found.state_dict_metadata == expected.state_dict_metadata
        assert found.storage_data == expected.storage_data
