import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from optim import Lamb
from tests.ranks import run_on_ranks
from tests.workers.checkpoints.trained import same, trained, write, write_format_1
from workers.checkpoints.errors import CheckpointError
from workers.checkpoints.load import Loaded, committed, load_newest
from workers.contract.run.folder import CheckpointName, RunFolder

alone = pytest.mark.usefixtures("alone")


def load(path: Path) -> tuple[Loaded | None, bool]:
    """Load the newest checkpoint into another model; say whether that has become the one of seed 0."""
    model, optimizer = trained(seed=9)
    loaded = load_newest(RunFolder(path), model, optimizer)
    return loaded, same((model, optimizer), trained(seed=0))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@alone
def test_what_was_saved_is_loaded_to_the_same_bits(tmp_path: Path) -> None:
    write(tmp_path, 2)
    loaded, is_same = load(tmp_path)
    assert loaded is not None
    assert (loaded.name, loaded.damaged, is_same) == (CheckpointName(2, 1), (), True)


@alone
def test_a_checkpoint_of_the_version_before_hashes_and_attempts_is_loaded_to_the_same_bits(tmp_path: Path) -> None:
    write_format_1(tmp_path, 200)
    loaded, is_same = load(tmp_path)
    assert loaded is not None
    assert (loaded.name, loaded.damaged, is_same) == (CheckpointName(200, 0), (), True)


@alone
def test_where_nothing_was_ever_finished_there_is_nothing_to_load(tmp_path: Path) -> None:
    assert load(tmp_path)[0] is None
    (write(tmp_path, 1) / "manifest.json").unlink()  # killed while it wrote
    assert load(tmp_path)[0] is None


def test_what_a_later_attempt_wrote_is_newer_and_of_one_attempt_the_higher_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in ["step-00000900", "step-00000100-a1", "step-00001000-a1", "step-00000300-a2", "step-00000009-a10"]:
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "manifest.json").touch()
    found = [(name.attempt, name.step) for name in committed(folder)]
    assert found == [(0, 900), (1, 100), (1, 1000), (2, 300), (10, 9)]


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit of a tensor flipped": (lambda path: flip_a_bit(path / "__0_0.distcp"), "__0_0.distcp has the sha256"),
    "a bit of the metadata flipped": (lambda path: flip_a_bit(path / ".metadata"), ".metadata has the sha256"),
    "a file cut off": (lambda path: os.truncate(path / "__0_0.distcp", 100), "__0_0.distcp has 100 bytes"),
    "a file gone": (lambda path: (path / "__0_0.distcp").unlink(), "__0_0.distcp cannot be read"),
    "an empty manifest": (lambda path: os.truncate(path / "manifest.json", 0), "manifest.json cannot be read"),
    "half a manifest": (lambda path: os.truncate(path / "manifest.json", 60), "manifest.json cannot be read"),
    "a manifest of NUL bytes": (lambda path: (path / "manifest.json").write_bytes(bytes(80)), "manifest.json cannot"),
    "a manifest that is no UTF-8": (lambda path: (path / "manifest.json").write_bytes(b"\xff"), "manifest.json cannot"),
    "a manifest that is a list": (lambda path: (path / "manifest.json").write_text("[]"), "manifest.json cannot"),
    "a manifest without fields": (lambda path: (path / "manifest.json").write_text("{}"), "manifest.json cannot"),
    "a manifest of a newer format": (lambda path: change(path, format=99), "has format 99"),
    "a manifest that names a file elsewhere": (lambda path: change(path, files={"../x": {"size_bytes": 1}}), "is not"),
    "a manifest that leaves out a file": (lambda path: change(path, files={}), "names a file that the manifest does"),
    "a manifest of another step": (lambda path: change(path, step=7), "is that of step 7"),
}  # fmt: skip


def change(path: Path, **fields: object) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | fields))


@alone
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_with_its_fault_and_the_next_older_one_taken(damage: str, tmp_path: Path) -> None:
    do, fault = DAMAGES[damage]
    write(tmp_path, 1)
    do(write(tmp_path, 2, seed=1))
    loaded, is_same = load(tmp_path)
    assert loaded is not None
    assert (loaded.name.step, is_same) == (1, True)
    (said,) = loaded.damaged
    assert said.startswith("checkpoints/step-00000002-a1: ")
    assert fault in said


@alone
def test_damage_of_a_checkpoint_without_hashes_is_found_where_it_makes_it_unreadable(tmp_path: Path) -> None:
    write_format_1(tmp_path, 1)
    newer = write_format_1(tmp_path, 2, seed=1) / "__0_0.distcp"
    newer.write_bytes(bytes(newer.stat().st_size))
    loaded, is_same = load(tmp_path)
    assert loaded is not None
    assert (loaded.name.step, is_same) == (1, True)
    assert "step-00000002: it cannot be loaded" in loaded.damaged[0]


@alone
def test_where_all_are_damaged_the_error_names_each_with_its_fault_and_the_remedy(tmp_path: Path) -> None:
    flip_a_bit(write(tmp_path, 1) / ".metadata")
    os.truncate(write(tmp_path, 2) / "manifest.json", 0)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path)
    assert "step-00000001-a1: .metadata has the sha256" in str(caught.value)
    assert "step-00000002-a1: manifest.json cannot be read" in str(caught.value)
    assert "remove that folder to begin again at step 1" in str(caught.value)


def other(*layers: nn.Module) -> tuple[nn.Module, Lamb]:
    model = nn.Sequential(*layers)
    return model, Lamb(model.named_parameters(), lr=0.1)


OTHER_MODELS = {
    "another width": ((nn.Linear(3, 4), nn.Linear(4, 5)), "1.weight is [2, 4] there, and is [5, 4] in the job"),
    "a layer more": (
        (nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)),
        "2.weight is missing there, and is [2, 2] in the job",
    ),
    "a layer less": ((nn.Linear(3, 4),), "1.weight is [2, 4] there, and is missing in the job"),
}


@alone
@pytest.mark.parametrize("model", OTHER_MODELS)
def test_a_checkpoint_of_another_model_is_refused_with_the_first_tensor_that_differs(
    model: str, tmp_path: Path
) -> None:
    layers, difference = OTHER_MODELS[model]
    write(tmp_path, 1, 2)
    with pytest.raises(
        CheckpointError, match=re.escape(f"step-00000002-a1 is of another model or vocabulary: {difference}")
    ):
        load_newest(RunFolder(tmp_path), *other(*layers))


def load_on_each_rank(path: Path) -> tuple[int, tuple[str, ...], bool]:
    """Load into a model that is sharded over the ranks; say whether it has become the one of seed 0."""
    model, _ = trained(seed=9)
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    loaded = load_newest(RunFolder(path), model, Lamb(model.named_parameters(), lr=0.1))
    assert loaded is not None
    expected, _ = trained(seed=0)
    values = zip(model.parameters(), expected.parameters(), strict=True)
    return loaded.name.step, loaded.damaged, all(bool((a.full_tensor() == b).all()) for a, b in values)  # type: ignore[attr-defined]


@alone
def test_two_ranks_take_the_same_older_checkpoint_whichever_finds_the_damage(tmp_path: Path) -> None:
    write(tmp_path, 1)
    flip_a_bit(write(tmp_path, 2, seed=1) / "__0_0.distcp")  # the second of two files: rank 1 reads it
    flip_a_bit(write(tmp_path, 3, seed=1) / ".metadata")  # the first: rank 0
    first, second = run_on_ranks(2, load_on_each_rank, tmp_path)
    assert first == second
    assert (first[0], len(first[1]), first[2]) == (1, 2, True)
