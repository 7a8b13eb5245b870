"""Checkpoints that are written by threads; `Held` lets a test decide when."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from optim import Lamb
from tests.ranks import run_on_ranks
from tests.workers.checkpoints.trained import draft, same, trained
from workers.checkpoints.background import BackgroundWriter, at_once, in_a_thread
from workers.checkpoints.load import load_newest
from workers.checkpoints.save import state_of
from workers.contract.run.folder import CheckpointName, RunFolder
from workers.contract.run.store import FolderStore

CPU = torch.device("cpu")


class Held(FolderStore):
    """A store in which writing begins when the test lets it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.may_begin = threading.Event()

    @contextmanager
    def writing(self, name: str) -> Generator[BinaryIO]:
        self.may_begin.wait()
        with super().writing(name) as file:
            yield file


def held(path: Path) -> tuple[RunFolder, threading.Event]:
    folder, store = RunFolder(path), Held(path)
    folder.store = store
    return folder, store.may_begin


def change(model: nn.Module, optimizer: Lamb) -> None:
    """Take another step, which changes weights and moments in place."""
    model(torch.ones(5, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.usefixtures("alone")
def test_what_training_changes_meanwhile_is_not_in_the_checkpoint_nor_in_the_next_one(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder, may_begin = held(tmp_path)
    writer = BackgroundWriter(CPU)
    for step in (1, 2):
        expected, loaded = trained(), trained(seed=9)
        for _ in range(step - 1):
            change(*expected)
        may_begin.clear()
        writing = writer.begin(folder, draft(step), state_of(model, optimizer))
        change(model, optimizer)
        assert not writing.done()
        may_begin.set()
        assert writing.result().name == CheckpointName(step, 1)
        load_newest(folder, *loaded)
        assert same(loaded, expected)
        assert not same(loaded, (model, optimizer))


@pytest.mark.usefixtures("alone")
def test_the_copy_is_in_the_same_memory_each_time(tmp_path: Path) -> None:
    model, optimizer = trained()
    writer = BackgroundWriter(CPU)
    places = []
    for step in (1, 2, 3):
        state = state_of(model, optimizer)
        writer.begin(RunFolder(tmp_path), draft(step), state).result()
        copies = writer._stager._state_dict_stager._cached_storage_mapping
        places.append(sorted(copies[parameter.untyped_storage()].data_ptr() for parameter in model.parameters()))
    assert places[0] == places[1] == places[2]


def train_while_rank_1_writes(path: Path) -> tuple[float, list[float], bool]:
    """Sum over the ranks while a checkpoint is held up on rank 1; return the sum, the weights before, and whether they
    are in the checkpoint."""
    model, _ = trained()
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = Lamb(model.named_parameters(), lr=0.1)
    change(model, optimizer)
    before = [full(parameter) for parameter in model.parameters()]
    folder, may_begin = held(path)
    if dist.get_rank() != 1:
        may_begin.set()
    writing = BackgroundWriter(CPU).begin(folder, draft(1), state_of(model, optimizer))
    total = torch.zeros(1)
    for number in range(50):
        change(model, optimizer)  # with the collectives of FSDP2
        total += number
        dist.all_reduce(total)
    assert not writing.done()
    may_begin.set()
    writing.result()
    load_newest(folder, model, optimizer)
    same_bits = all(torch.equal(full(p), value) for p, value in zip(model.parameters(), before, strict=True))
    return float(total), [value.sum().item() for value in before], same_bits


def full(parameter: torch.Tensor) -> torch.Tensor:
    assert isinstance(parameter, DTensor)
    return parameter.full_tensor().detach().clone()


def test_training_goes_on_on_all_ranks_while_one_of_them_has_not_written_its_part(tmp_path: Path) -> None:
    first, second = run_on_ranks(2, train_while_rank_1_writes, tmp_path)
    assert first == second
    assert first[2]


def fail_in_the_background(path: Path) -> str:
    """Write into a folder that is a file on rank 1; return the error."""
    model, optimizer = trained()
    own = path / str(dist.get_rank())
    own.mkdir()
    if dist.get_rank() == 1:
        (own / "checkpoints").write_text("")
    writing = BackgroundWriter(CPU).begin(RunFolder(own), draft(1), state_of(model, optimizer))
    return str(writing.exception())


def test_what_one_rank_cannot_write_all_ranks_are_told(tmp_path: Path) -> None:
    first, second = run_on_ranks(2, fail_in_the_background, tmp_path)
    assert first.partition(" to ")[0] == second.partition(" to ")[0] == "the checkpoint of step 1 could not be written"
    assert "rank 1: " in first


def test_an_error_is_raised_where_the_outcome_is_asked_for() -> None:
    for begin in (in_a_thread, at_once):
        with pytest.raises(ZeroDivisionError):
            begin(lambda: 1 / 0).result()
        assert begin(lambda: 7).result() == 7
