import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from optim import Lamb
from tests.workers.small_job import document
from workers.checkpoints import save as checkpoint
from workers.contract.documents import parse_spec
from workers.ranks import process_group


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with process_group(parse_spec(document(Path("unused")))):
        yield


def trained(seed: int = 0) -> tuple[nn.Module, Lamb]:
    """A small model after two steps."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = Lamb(model.named_parameters(), lr=0.1)
    for _ in range(2):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def save(folder: Path, *steps: int, keep: int = 9) -> None:
    model, optimizer = trained()
    for step in steps:
        checkpoint.save(folder, step, model, optimizer, keep=keep)


def test_what_was_saved_is_loaded_to_the_same_bits(tmp_path: Path) -> None:
    model, optimizer = trained(seed=0)
    saved = checkpoint.save(tmp_path, 2, model, optimizer, keep=1)
    other, its_optimizer = trained(seed=1)
    checkpoint.load(saved.path, other, its_optimizer)
    for expected, found in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(expected, found)
        for key, value in optimizer.state[expected].items():
            assert torch.equal(value, its_optimizer.state[found][key])


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    save(tmp_path, 9, 10, 100)
    assert checkpoint.newest(tmp_path) == (100, tmp_path / "step-00000100")


def test_a_checkpoint_without_its_manifest_is_not_there(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / "manifest.json").unlink()
    assert checkpoint.newest(tmp_path) == (1, tmp_path / "step-00000001")


def test_a_checkpoint_with_a_torn_file_is_not_there(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    (torn,) = (tmp_path / "step-00000002").glob("*.distcp")
    torn.write_bytes(torn.read_bytes()[:-1])
    assert checkpoint.newest(tmp_path) == (1, tmp_path / "step-00000001")


def test_a_step_that_was_left_half_written_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-00000001" / "left.distcp").write_bytes(b"half")
    save(tmp_path, 1)
    sizes = json.loads((tmp_path / "step-00000001" / "manifest.json").read_text())["sizes_bytes"]
    assert checkpoint.newest(tmp_path) is not None
    assert "left.distcp" not in sizes


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def test_a_torn_checkpoint_does_not_count_among_those_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / "manifest.json").unlink()
    save(tmp_path, 3, keep=2)
    assert checkpoint.newest(tmp_path) == (3, tmp_path / "step-00000003")
    assert (tmp_path / "step-00000001" / "manifest.json").exists()
