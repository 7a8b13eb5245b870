"""Real modules under FSDP2 and HSDP, with all that real models have, train as one process does on the whole batch."""

from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F

from optim import Lamb
from tests.optim.oracle import make_tensors
from tests.ranks import run_on_ranks

STEPS = 4
MESHES = [(1,), (2,), (3,), (4,), (2, 2)]


class Reader(nn.Module):
    """A tied decoder, a frozen layer, a branch that two steps of four take, and a scale that is not sharded."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.hidden = nn.Linear(6, 7)  # 7 rows are uneven on 2, 3 and 4 ranks
        self.branch = nn.Linear(7, 7)
        self.frozen = nn.Linear(7, 7).requires_grad_(False)
        self.neck = nn.Linear(7, 2)  # 2 rows leave a rank of 3 and two of 4 without any
        self.out = nn.Linear(2, 6)
        self.scale = nn.Parameter(torch.ones(6))
        self.decoder = nn.Linear(6, 11, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, words: Tensor, step: int) -> Tensor:
        x = self.hidden(self.embedding(words)).tanh()
        if step % 2:
            x = x + self.branch(x)
        return self.decoder(self.out(self.neck(self.frozen(x)).tanh()) * self.scale)  # type: ignore[no-any-return]


class Trained(NamedTuple):
    weights: dict[str, Tensor]
    ratios: list[dict[str, float]]
    grad_norms: list[float]
    collectives: set[int]
    skipped: list[bool]
    steps: dict[str, float]


def make_model(dtype: torch.dtype) -> Reader:
    torch.manual_seed(0)
    return Reader().to(dtype)


def take_steps(model: Reader, slices: int = 1, slice_: int = 0, bad_step: int = 0) -> Trained:
    """Train on this rank's slice of each batch; one with `bad_step` has an Inf on the last rank alone."""
    optimizer = Lamb(model.named_parameters(), lr=0.05, max_grad_norm=0.1)
    ratios, grad_norms, collectives, skipped = [], [], set(), []
    for step in range(1, STEPS + 1):
        words = torch.randint(11, (24, 2), generator=torch.Generator().manual_seed(step)).chunk(slices)[slice_]
        loss = F.cross_entropy(model(words[:, 0], step), words[:, 1])
        if step == bad_step and slice_ == slices - 1:
            loss = loss * torch.inf
        loss.backward()  # type: ignore[no-untyped-call]
        assert model.scale.grad is not None
        if slices > 1:  # FSDP leaves what it ignores to its user
            dist.all_reduce(model.scale.grad.div_(slices))
        with CommDebugMode() as counted:  # type: ignore[no-untyped-call]
            optimizer.step()
        last = optimizer.last_step
        assert last is not None
        assert last.grad_norm is not None
        ratios.append(dict(zip(last.names, last.trust_ratio.tolist(), strict=True)))
        grad_norms.append(last.grad_norm.item())
        collectives.add(counted.get_total_counts())
        skipped.append(bool(last.skipped))
        optimizer.zero_grad()
    weights = {name: whole(p) for name, p in model.named_parameters()}
    own_steps = {name: optimizer.state[p]["step"].item() for name, p in model.named_parameters() if p.requires_grad}
    return Trained(weights, ratios, grad_norms, collectives, skipped, own_steps)


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def train_sharded(mesh_shape: tuple[int, ...], dtype: torch.dtype, bad_step: int = 0) -> Trained:
    mesh = init_device_mesh("cpu", mesh_shape, mesh_dim_names=("replicas", "parts")[-len(mesh_shape) :])
    model = make_model(dtype)
    for layer in (model.hidden, model.branch):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params={model.scale})
    assert isinstance(model.embedding.weight, DTensor)
    assert model.decoder.weight is model.embedding.weight
    return take_steps(model, dist.get_world_size(), dist.get_rank(), bad_step)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
@pytest.mark.parametrize("mesh_shape", MESHES, ids=str)
def test_a_sharded_model_trains_as_one_process_does(
    mesh_shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    alone = take_steps(make_model(dtype))
    start = {name: whole(p) for name, p in make_model(dtype).named_parameters()}
    assert {name for name in start if torch.equal(start[name], alone.weights[name])} == {"frozen.weight", "frozen.bias"}
    assert [("branch.weight" in each, len(each)) for each in alone.ratios] == [(True, 10), (False, 8)] * 2
    assert alone.steps["branch.weight"] == 2.0
    assert min(alone.grad_norms) > 0.1
    for trained in run_on_ranks(torch.Size(mesh_shape).numel(), train_sharded, mesh_shape, dtype):
        assert trained.weights.keys() == alone.weights.keys()
        for name, expected in alone.weights.items():
            torch.testing.assert_close(trained.weights[name], expected, rtol=tolerance, atol=tolerance)
        assert [each.keys() for each in trained.ratios] == [each.keys() for each in alone.ratios]
        for got, wanted in zip(trained.ratios, alone.ratios, strict=True):
            assert got == pytest.approx(wanted, rel=10 * tolerance)
        assert trained.grad_norms == pytest.approx(alone.grad_norms, rel=tolerance)
        assert trained.steps == alone.steps
        assert trained.collectives == {2 if mesh_shape != (1,) else 0}


@pytest.mark.parametrize("mesh_shape", [(3,), (2, 2)], ids=str)
def test_an_infinite_loss_on_one_rank_is_skipped_by_all(mesh_shape: tuple[int, ...]) -> None:
    ranks = run_on_ranks(torch.Size(mesh_shape).numel(), train_sharded, mesh_shape, torch.float32, 3)
    for trained in ranks:
        assert trained.skipped == [False, False, True, False]
        assert trained.steps["hidden.weight"] == 3.0
        assert all(torch.equal(trained.weights[name], ranks[0].weights[name]) for name in trained.weights)
        assert all(weight.isfinite().all() for weight in trained.weights.values())


def train_over_tensor_parallel() -> tuple[list[Tensor], str, set[int], str]:
    """Return weights, placements, collectives and description of a network that FSDP cuts over tensor parallelism."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    model = parallelize_module(make_network(), mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    fully_shard(model, mesh=mesh["data"])
    collectives, optimizer = train_network(model, 2, mesh.get_local_rank("data"))
    placements = str([p.placements for p in model.parameters() if isinstance(p, DTensor)])
    return [whole(p) for p in model.parameters()], placements, collectives, optimizer.describe()


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3), nn.LayerNorm(3)).double()


def train_network(model: nn.Module, slices: int = 1, slice_: int = 0) -> tuple[set[int], Lamb]:
    optimizer = Lamb(model.named_parameters(), lr=0.05, max_grad_norm=1.0)
    collectives = set()
    for step in range(1, 4):
        model(make_tensors([(12, 5)], 100 + step)[0].chunk(slices)[slice_]).square().mean().backward()
        with CommDebugMode() as counted:  # type: ignore[no-untyped-call]
            optimizer.step()
        collectives.add(counted.get_total_counts())
        optimizer.zero_grad()
    return collectives, optimizer


def test_strided_shards_of_tensor_parallelism_under_fsdp_train_as_one_process_does() -> None:
    alone = make_network()
    train_network(alone)
    for weights, placements, collectives, description in run_on_ranks(4, train_over_tensor_parallel):
        for weight, expected in zip(weights, alone.parameters(), strict=True):
            torch.testing.assert_close(weight, expected.detach(), rtol=1e-12, atol=1e-12)
        assert "_StridedShard" in placements
        assert collectives == {6}  # three for each vector: two for matrices cut both ways, one for the others
        assert "6 sharded, 6 collectives a step" in description
