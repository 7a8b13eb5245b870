"""What torch.distributed.checkpoint saves of Lamb at one number of ranks, it loads at another."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from optim import Lamb
from tests.optim.oracle import make_tensors
from tests.ranks import run_on_ranks


class Held(NamedTuple):
    tensors: dict[str, Tensor]
    ratios: list[float]


class Run:
    """A small model and its optimizer, sharded over all ranks (FSDP2) or whole on each (DDP)."""

    def __init__(self, world_size: int, sharded: bool, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 2))
        if sharded:
            self.mesh = init_device_mesh("cpu", (world_size,))
            fully_shard(self.model, mesh=self.mesh)
        else:
            self.model = DistributedDataParallel(self.model)
        groups: list[dict[str, Any]] = [
            {"params": [(n, p) for n, p in self.model.named_parameters() if "weight" in n]},
            {"params": [(n, p) for n, p in self.model.named_parameters() if "bias" in n], "layer_adaptation": False},
        ]
        self.optimizer = Lamb(groups, lr=0.05, max_grad_norm=1.0)

    def train(self, first: int, last: int) -> None:
        parameters = list(self.model.parameters())
        for step in range(first, last + 1):
            gradients = make_tensors([p.shape for p in parameters], step, torch.float32)
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient
                if isinstance(p, DTensor):
                    p.grad = distribute_tensor(gradient, p.device_mesh, p.placements)
            self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, folder: Path) -> None:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        save({"model": model, "optimizer": optimizer}, checkpoint_id=folder)

    def load(self, folder: Path) -> None:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        state: dict[str, Any] = {"model": model, "optimizer": optimizer}
        load(state, checkpoint_id=folder)
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])

    def held(self) -> Held:
        tensors = {}
        for name, parameter in self.model.named_parameters():
            entries = {"weight": parameter, **self.optimizer.state[parameter]}
            for key, tensor in entries.items():
                full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
                tensors[f"{name.removeprefix('module.')}/{key}"] = full.detach().clone()
        last = self.optimizer.last_step
        return Held(tensors, last.trust_ratio.tolist() if last else [])


def save_and_go_on(world_size: int, sharded: bool, folder: Path) -> tuple[Held, Held]:
    """Return what is held after 3 steps, where it is saved, and after 5."""
    run = Run(world_size, sharded)
    run.train(1, 3)
    run.save(folder)
    saved = run.held()
    run.train(4, 5)
    return saved, run.held()


def load_and_go_on(world_size: int, sharded: bool, folder: Path) -> tuple[Held, Held]:
    run = Run(world_size, sharded, seed=1)
    run.load(folder)
    loaded = run.held()
    run.train(4, 5)
    return loaded, run.held()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Held, Held]:
    folder = tmp_path_factory.mktemp("saved-at-three")
    held, later = run_on_ranks(3, save_and_go_on, 3, True, folder)[0]
    return folder, held, later


@pytest.mark.parametrize(("world", "sharded"), [(3, True), (2, True), (1, True), (2, False)])
def test_what_three_ranks_saved_is_loaded_bit_by_bit(saved: tuple[Path, Held, Held], world: int, sharded: bool) -> None:
    folder, held, later = saved
    assert held.tensors["0.weight/step"].item() == 3.0
    for loaded, gone_on in run_on_ranks(world, load_and_go_on, world, sharded, folder):
        assert loaded.tensors.keys() == held.tensors.keys()
        assert all(torch.equal(loaded.tensors[key], tensor) for key, tensor in held.tensors.items())
        tolerance = 0.0 if world == 3 else 1e-6
        for key, tensor in later.tensors.items():
            torch.testing.assert_close(gone_on.tensors[key], tensor, rtol=tolerance, atol=0)
        assert gone_on.ratios == pytest.approx(later.ratios, rel=tolerance or 1e-15)


def test_what_whole_replicas_saved_is_loaded_in_shards(tmp_path: Path) -> None:
    held, later = run_on_ranks(2, save_and_go_on, 2, False, tmp_path)[0]
    for loaded, gone_on in run_on_ranks(3, load_and_go_on, 3, True, tmp_path):
        assert all(torch.equal(loaded.tensors[key], tensor) for key, tensor in held.tensors.items())
        for key, tensor in later.tensors.items():
            torch.testing.assert_close(gone_on.tensors[key], tensor, rtol=1e-6, atol=0)


class Placed(NamedTuple):
    same: list[bool]
    reloaded: bool


def inspect_state() -> Placed:
    run = Run(2, sharded=True)
    run.train(1, 1)
    same = []
    for parameter, state in run.optimizer.state.items():
        assert isinstance(parameter, DTensor)
        wanted = parameter.placements, parameter.device_mesh
        same += [(state[key].placements, state[key].device_mesh) == wanted for key in ("exp_avg", "exp_avg_sq")]
    before = run.held()
    run.optimizer.load_state_dict(run.optimizer.state_dict())
    after = run.held()
    return Placed(same, all(torch.equal(before.tensors[key], after.tensors[key]) for key in before.tensors))


def test_moments_are_placed_like_their_parameter_and_survive_torchs_own_state_dict() -> None:
    for placed in run_on_ranks(2, inspect_state):
        assert placed == Placed([True] * 8, True)
