"""What torch.distributed.checkpoint saves of Lamb at one number of ranks, it loads at another."""

from collections.abc import Sequence
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


class Layout(NamedTuple):
    """FSDP2 over a mesh of one dimension, HSDP over one of two, or whole replicas (DDP)."""

    mesh: tuple[int, ...]
    whole: bool = False

    @property
    def world(self) -> int:
        return torch.Size(self.mesh).numel()


class Setup(NamedTuple):
    layout: Layout
    dtype: torch.dtype = torch.float64
    switches: dict[str, Any] = {}  # noqa: RUF012 - nobody writes to it


class Held(NamedTuple):
    tensors: dict[str, Tensor]
    ratios: list[float]


class Run:
    """A small model and its optimizer. Of 7 rows on 4 ranks and 2 on 3, parts are uneven and some are empty."""

    def __init__(self, setup: Setup, seed: int) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = nn.Sequential(nn.Linear(90, 7), nn.Linear(7, 2)).to(setup.dtype)
        if setup.layout.whole:
            self.model = DistributedDataParallel(self.model)
        else:
            names = ("replicas", "parts")[-len(setup.layout.mesh) :]
            fully_shard(self.model, mesh=init_device_mesh("cpu", setup.layout.mesh, mesh_dim_names=names))
        groups: list[dict[str, Any]] = [
            {"params": [(n, p) for n, p in self.model.named_parameters() if "weight" in n]},
            {"params": [(n, p) for n, p in self.model.named_parameters() if "bias" in n], "layer_adaptation": False},
        ]
        self.optimizer = Lamb(groups, lr=0.05, max_grad_norm=1.0, **setup.switches)

    def train(self, steps: range) -> None:
        parameters = list(self.model.parameters())
        for step in steps:
            gradients = make_tensors([p.shape for p in parameters], step, parameters[0].dtype)
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


def go_on(setup: Setup, source: Path | None, steps: range, target: Path | None) -> tuple[Held, Held]:
    """Load, train and save; return what was held at the start and at the end."""
    run = Run(setup, seed=steps.start)
    if source:
        run.load(source)
    start = run.held()
    run.train(steps)
    if target:
        run.save(target)
    return start, run.held()


def ranks_go_on(setup: Setup, source: Path | None, steps: range, target: Path | None = None) -> list[tuple[Held, Held]]:
    return run_on_ranks(setup.layout.world, go_on, setup, source, steps, target)


def same_bits(one: Held, other: Held) -> bool:
    assert one.tensors.keys() == other.tensors.keys()
    return all(
        tensor.dtype is other.tensors[key].dtype and torch.equal(tensor, other.tensors[key])
        for key, tensor in one.tensors.items()
    )


FSDP4, FSDP3, FSDP2, ALONE = (Layout((world,)) for world in (4, 3, 2, 1))
HSDP, DDP = Layout((2, 2)), Layout((2,), whole=True)


@pytest.mark.parametrize(
    "layouts",
    [(FSDP4, FSDP3, FSDP2, ALONE), (HSDP, FSDP4, HSDP, FSDP2), (HSDP, ALONE), (DDP, FSDP3, DDP, HSDP)],
    ids=["4, 3, 2 and 1 ranks", "HSDP and FSDP", "HSDP to one rank", "DDP and FSDP"],
)
def test_a_run_that_changes_its_ranks_ends_where_one_rank_does(layouts: Sequence[Layout], tmp_path: Path) -> None:
    source, held = None, None
    for number, layout in enumerate(layouts):
        target = tmp_path / str(number)
        ranks = ranks_go_on(Setup(layout), source, range(2 * number + 1, 2 * number + 3), target)
        if held:
            assert all(same_bits(loaded, held) for loaded, _ in ranks)
        source, held = target, ranks[0][1]
    assert held is not None
    straight = ranks_go_on(Setup(ALONE), None, range(1, 2 * len(layouts) + 1))[0][1]
    assert held.tensors["0.weight/step"].item() == 2.0 * len(layouts)
    for key, tensor in straight.tensors.items():
        # Ranks add gradients in another order: where terms cancel, an element is only as exact as its largest term.
        torch.testing.assert_close(held.tensors[key], tensor, rtol=0, atol=1e-12 * float(tensor.abs().max()))
    assert held.ratios == pytest.approx(straight.ratios, rel=1e-12)


@pytest.mark.parametrize("moments", ["full", "bfloat16", "8bit"])
@pytest.mark.parametrize(("layout", "dtype"), [(HSDP, torch.float32), (FSDP3, torch.bfloat16)])
def test_stop_save_load_and_go_on_at_the_same_ranks_is_bit_identical(
    layout: Layout, dtype: torch.dtype, moments: str, tmp_path: Path
) -> None:
    setup = Setup(layout, dtype, {"moments": moments, "master_weights": True})
    straight = ranks_go_on(setup, None, range(1, 6))
    stopped = ranks_go_on(setup, None, range(1, 4), tmp_path)
    resumed = ranks_go_on(setup, tmp_path, range(4, 6))
    for (_, wanted), (_, saved), (loaded, got) in zip(straight, stopped, resumed, strict=True):
        assert same_bits(loaded, saved)
        assert same_bits(got, wanted)
        assert got.ratios == wanted.ratios
        if dtype is torch.bfloat16:
            master = loaded.tensors["0.weight/master"]
            assert master.dtype is torch.float32
            assert not torch.equal(master, master.bfloat16().float())


class Placed(NamedTuple):
    same: list[bool]
    reloaded: bool


def inspect_state() -> Placed:
    run = Run(Setup(FSDP2), seed=1)
    run.train(range(1, 2))
    same = []
    for parameter, state in run.optimizer.state.items():
        assert isinstance(parameter, DTensor)
        wanted = parameter.placements, parameter.device_mesh
        same += [(state[key].placements, state[key].device_mesh) == wanted for key in ("exp_avg", "exp_avg_sq")]
    before = run.held()
    run.optimizer.load_state_dict(run.optimizer.state_dict())
    return Placed(same, same_bits(before, run.held()))


def test_moments_are_placed_like_their_parameter_and_survive_torchs_own_state_dict() -> None:
    for placed in run_on_ranks(2, inspect_state):
        assert placed == Placed([True] * 8, True)
