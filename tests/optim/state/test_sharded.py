"""What Lamb stores of sharded tensors: moments in every format, and states that come from elsewhere."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.placement_types import Placement

from optim import Lamb
from tests.optim.oracle import Oracle, make_tensors
from tests.optim.state.optimizers import APEX, SHAPES, TIMM, foreign_state
from tests.ranks import run_on_ranks

# Blocks of 256 end within rows and within parts; of 2 rows on 3 ranks and 1 on 2, one rank has none.
NARROW_SHAPES = [(9, 70), (2, 300), (1, 5), (700,)]
FSDP, HSDP = (Shard(0),), (Replicate(), Shard(0))


class Kept(NamedTuple):
    local: list[Tensor]
    ratios: list[list[float]]
    expected: list[list[float]]
    collectives: set[int]


def parameters_on(
    mesh: DeviceMesh, placements: Sequence[Placement], tensors: Sequence[Tensor], *, plain: bool = False
) -> list[nn.Parameter]:
    """Return parameters cut alike, but for a plain last one if `plain`."""
    count = len(tensors) - plain
    cut: list[Tensor] = [distribute_tensor(tensor, mesh, placements) for tensor in tensors[:count]]
    return [nn.Parameter(tensor) for tensor in (*cut, *tensors[count:])]


def give_gradients(parameters: Sequence[Tensor], seed: int) -> None:
    for p, grad in zip(parameters, make_tensors([p.shape for p in parameters], seed, parameters[0].dtype), strict=True):
        p.grad = distribute_tensor(grad, p.device_mesh, p.placements) if isinstance(p, DTensor) else grad


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def train(mesh_shape: tuple[int, ...], placements: Sequence[Placement], dtype: torch.dtype, moments: Any) -> Kept:
    """Take three steps; beside each ratio, return the one that whole weights and saved moments have."""
    mesh = init_device_mesh("cpu", mesh_shape)
    parameters = parameters_on(mesh, placements, make_tensors(NARROW_SHAPES, 0, dtype))
    optimizer = Lamb(parameters, lr=0.05, max_grad_norm=1.0, master_weights=True, moments=moments)
    ratios, expected, collectives = [], [], set()
    for step in (1, 2, 3):
        give_gradients(parameters, step)
        before = [whole(optimizer.state[p].get("master", p)).double() for p in parameters]
        with CommDebugMode() as counted:  # type: ignore[no-untyped-call]
            optimizer.step()
        collectives.add(counted.get_total_counts())
        assert optimizer.last_step is not None
        ratios.append(optimizer.last_step.trust_ratio.tolist())
        saved = optimizer.state_dict()["state"].values()
        expected.append([trust_ratio(w, own, step) for w, own in zip(before, saved, strict=True)])
    states = [{"weight": p, **optimizer.state[p]} for p in parameters]
    parts = [t.to_local() if isinstance(t, DTensor) else t for state in states for t in state.values()]
    return Kept([part.detach() for part in parts], ratios, expected, collectives)


def trust_ratio(w: Tensor, state: dict[str, Tensor], step: int) -> float:
    m, v = (whole(state[key]).double() for key in ("exp_avg", "exp_avg_sq"))
    u = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-6) + 0.01 * w
    return float(w.norm() / u.norm())


@pytest.mark.parametrize("moments", ["full", "bfloat16", "8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("mesh_shape", "placements"), [((3,), FSDP), ((2, 2), HSDP)], ids=["FSDP", "HSDP"])
def test_the_ratio_is_that_of_the_moments_as_all_ranks_store_them(
    mesh_shape: tuple[int, ...], placements: Sequence[Placement], dtype: torch.dtype, moments: str
) -> None:
    ranks = run_on_ranks(torch.Size(mesh_shape).numel(), train, mesh_shape, placements, dtype, moments)
    for kept in ranks:
        for got, wanted in zip(kept.ratios, kept.expected, strict=True):
            assert got == pytest.approx(wanted, rel=1e-6)
        assert kept.ratios == ranks[0].ratios
        assert kept.collectives == {2}
    if placements is HSDP:  # ranks 2 and 3 are replicas of 0 and 1
        for one, other in ((0, 2), (1, 3)):
            assert all(map(torch.equal, ranks[one].local, ranks[other].local))


def go_on(mesh_shape: tuple[int, ...], placements: Sequence[Placement], saved: Any, weights: list[Tensor]) -> list[Any]:
    """Load a whole state into cut parameters; return moments and steps then, and weights two steps later."""
    parameters = parameters_on(init_device_mesh("cpu", mesh_shape), placements, weights, plain=True)
    optimizer = Lamb(parameters, max_grad_norm=1.0)
    optimizer.load_state_dict(saved)
    states = [optimizer.state[p] for p in parameters]
    for p, state in zip(parameters, states, strict=True):
        if isinstance(p, DTensor):
            assert [state[key].placements for key in ("exp_avg", "exp_avg_sq")] == [p.placements] * 2
    loaded = [[whole(state[key]) for state in states] for key in ("exp_avg", "exp_avg_sq", "step")]
    for step in (4, 5):
        give_gradients(parameters, step)
        optimizer.step()
    return [*loaded, [whole(p) for p in parameters]]


@pytest.mark.parametrize("extra", [{}, TIMM], ids=["apex", "timm"])
@pytest.mark.parametrize(
    ("mesh_shape", "placements"), [((3,), FSDP), ((2,), (Shard(1),)), ((2, 2), HSDP)], ids=["rows", "columns", "HSDP"]
)
def test_each_rank_cuts_its_part_of_a_whole_state_of_apex_or_timm(
    mesh_shape: tuple[int, ...], placements: Sequence[Placement], extra: dict[str, Any]
) -> None:
    shapes = [SHAPES[0], SHAPES[2], SHAPES[1]]  # matrices first, so that columns can be cut
    oracle = Oracle(make_tensors(shapes, 0))
    settings: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.02, "max_grad_norm": 1.0}
    for step in (1, 2, 3):
        oracle.step(make_tensors(shapes, step), **settings)
    saved = foreign_state(oracle, lr=0.05, eps=1e-6, max_grad_norm=1.0, **APEX, **extra)
    ranks = run_on_ranks(torch.Size(mesh_shape).numel(), go_on, mesh_shape, placements, saved, oracle.weights)
    moments = [*oracle.exp_avgs, *oracle.exp_avg_sqs]
    for step in (4, 5):
        oracle.step(make_tensors(shapes, step), **settings)
    for exp_avgs, exp_avg_sqs, steps, weights in ranks:
        assert all(map(torch.equal, [*exp_avgs, *exp_avg_sqs], moments))
        assert [step.item() for step in steps] == [3.0] * 3
        for weight, expected in zip(weights, oracle.weights, strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-12, atol=1e-14)


class Moved(NamedTuple):
    saved: Tensor
    loaded: Tensor
    fits: bool


def move(moments: Any) -> list[Moved]:
    """Save a state cut over one mesh; load it whole, cut over another mesh, and cut otherwise."""
    first, second = init_device_mesh("cpu", (2, 1)), init_device_mesh("cpu", (1, 2))
    weight = make_tensors([(9, 70)], 0, torch.float32)[0]
    (parameter,) = parameters_on(first, (Shard(0), Replicate()), [weight])
    optimizer = Lamb([parameter], moments=moments)
    give_gradients([parameter], 1)
    optimizer.step()
    saved = optimizer.state_dict()
    moved = []
    for other in (
        nn.Parameter(weight.clone()),
        *parameters_on(second, (Replicate(), Shard(0)), [weight]),
        *parameters_on(second, (Shard(0), Replicate()), [weight]),
        *parameters_on(first, (Shard(1), Replicate()), [weight]),
    ):
        loading = Lamb([other], moments=moments)
        loading.load_state_dict(saved)
        give_gradients([other], 2)
        part, kept = (t.to_local() if isinstance(t, DTensor) else t for t in (other, loading.state[other]["exp_avg"]))
        loaded = whole(loading.state_dict()["state"][0]["exp_avg"])
        loading.step()
        moved.append(Moved(whole(saved["state"][0]["exp_avg"]), loaded, part.shape == kept.shape))
    return moved


@pytest.mark.parametrize(("moments", "tolerance"), [("full", 0.0), ("bfloat16", 0.0), ("8bit", 0.02)])
def test_a_cut_state_is_loaded_whole_and_cut_otherwise(moments: str, tolerance: float) -> None:
    for rank in run_on_ranks(2, move, moments):
        for saved, loaded, fits in rank:
            assert fits
            torch.testing.assert_close(loaded, saved, rtol=0, atol=tolerance * saved.abs().max().item())
