"""Gradients that tensor parallelism leaves otherwise than their parameters: Lamb steps as on one process."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import RowwiseParallel, SequenceParallel, parallelize_module
from torch.distributed.tensor.placement_types import Placement

from optim import Lamb
from tests.optim.oracle import Oracle, make_tensors
from tests.ranks import run_on_ranks

ROWS, COLUMNS, ALL, TERMS = Shard(0), Shard(1), Replicate(), Partial()


class Trained(NamedTuple):
    weights: list[Tensor]
    placements: set[tuple[str, str]]
    collectives: set[int]


def make_network() -> nn.Module:
    """Return an embedding and two norms; their weights differ, so that a mixed-up gradient shows."""
    torch.manual_seed(0)
    norms = [nn.LayerNorm(4), nn.LayerNorm(4)]
    for norm in norms:
        nn.init.normal_(norm.weight)
    return nn.Sequential(nn.Embedding(9, 4), *norms).double()


def train(network: nn.Module) -> Trained:
    optimizer = Lamb(network.named_parameters(), lr=0.05, max_grad_norm=0.5)
    placements, collectives = set(), set()
    for step in range(1, 4):
        words = torch.randint(9, (2, 6), generator=torch.Generator().manual_seed(step))
        out = network(words)
        (out.full_tensor() if isinstance(out, DTensor) else out).pow(3).sum().backward()
        grads = [p.grad for p in network.parameters()]
        before = [full(grad) for grad in grads]
        placements |= {(placed(p), placed(grad)) for p, grad in zip(network.parameters(), grads, strict=True)}
        with CommDebugMode() as counted:  # type: ignore[no-untyped-call]
            optimizer.step()
        collectives.add(counted.get_total_counts())
        assert all(p.grad is grad for p, grad in zip(network.parameters(), grads, strict=True))
        assert all(torch.equal(full(grad), was) for grad, was in zip(grads, before, strict=True))
        optimizer.zero_grad()
    return Trained([full(p) for p in network.parameters()], placements, collectives)


def placed(tensor: Tensor | None) -> str:
    return str(tensor.placements) if isinstance(tensor, DTensor) else ""


def full(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def train_in_parallel() -> Trained:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    plan: dict[str, Any] = {
        "0": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        "1": SequenceParallel(),
        "2": SequenceParallel(),
    }
    return train(parallelize_module(make_network(), mesh, plan))


@pytest.mark.parametrize("world", [2, 3])
def test_an_embedding_and_norms_under_tensor_parallelism_train_as_on_one_process(world: int) -> None:
    alone = train(make_network())
    for trained in run_on_ranks(world, train_in_parallel):
        assert ("(Shard(dim=0),)", "(Replicate(),)") in trained.placements
        assert ("(Replicate(),)", "(Partial(sum),)") in trained.placements
        for weight, expected in zip(trained.weights, alone.weights, strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-10, atol=1e-12)
        assert trained.collectives == {3}  # one for the terms of all four tensors of the norms, beside the usual two


SHAPES = [(7, 3), (2, 4), (5,), (4, 6), (3, 3)]
Layout = tuple[tuple[Placement, ...], tuple[Placement, ...]]  # of the parameter, and of its gradient


def distribute(tensor: Tensor, mesh: DeviceMesh, placements: Sequence[Placement]) -> DTensor:
    """Return a tensor laid out as told; where it is to be a sum, each rank has a term of its own.

    In torch 2.9 `distribute_tensor` makes no terms.
    """
    whole = [ALL if placement == TERMS else placement for placement in placements]
    placed = distribute_tensor(tensor, mesh, whole)
    part = placed.to_local()
    for dim, placement in enumerate(placements):
        if placement == TERMS:
            ranks = mesh.size(dim)
            part = part * (2 * (mesh.get_local_rank(dim) + 1) / (ranks * (ranks + 1)))
    return DTensor.from_local(part, mesh, placements, shape=placed.shape, stride=placed.stride())


def step_with(mesh_shape: tuple[int, ...], layouts: Sequence[Layout], bad_rank: int = -1) -> tuple[list[Tensor], int]:
    """Return weights after two steps whose gradients are laid out as told, and the collectives of the second."""
    mesh = init_device_mesh("cpu", mesh_shape)
    parameters = [
        nn.Parameter(distribute_tensor(tensor, mesh, placements))
        for tensor, (placements, _) in zip(make_tensors(SHAPES, 0), layouts, strict=True)
    ]
    optimizer = Lamb(parameters, lr=0.05, max_grad_norm=1.0)
    for step in (1, 2):
        for parameter, tensor, (_, placements) in zip(parameters, make_tensors(SHAPES, step), layouts, strict=True):
            parameter.grad = distribute(tensor, mesh, placements)
        if step == 2 and dist.get_rank() == bad_rank:
            assert isinstance(parameters[0].grad, DTensor)
            parameters[0].grad.to_local()[0, 0] = float("nan")
        with CommDebugMode() as counted:  # type: ignore[no-untyped-call]
            optimizer.step()
    return [full(parameter) for parameter in parameters], counted.get_total_counts()


ONE_DIMENSION: list[Layout] = [((ROWS,), (TERMS,)), ((ALL,), (TERMS,)), ((ALL,), (ALL,)), ((ROWS,), (ALL,))]
TWO_DIMENSIONS: list[Layout] = [
    ((ALL, ROWS), (TERMS, ROWS)),
    ((ALL, ALL), (TERMS, TERMS)),
    ((ROWS, ALL), (ALL, TERMS)),
    ((ROWS, COLUMNS), (TERMS, COLUMNS)),
]


@pytest.mark.parametrize(
    ("mesh_shape", "layouts"),
    [
        ((2,), [*ONE_DIMENSION, ((ROWS,), (COLUMNS,))]),
        ((3,), [*ONE_DIMENSION, ((ALL,), (ROWS,))]),
        ((1,), [*ONE_DIMENSION, ((ALL,), (TERMS,))]),
        ((2, 2), [*TWO_DIMENSIONS, ((ALL, ALL), (ALL, ALL))]),
        ((2, 1), [*TWO_DIMENSIONS, ((ALL, ALL), (ALL, TERMS))]),
    ],
    ids=str,
)
def test_a_gradient_on_the_mesh_is_brought_to_its_parameter(
    mesh_shape: tuple[int, ...], layouts: Sequence[Layout]
) -> None:
    oracle = Oracle(make_tensors(SHAPES, 0))
    for step in (1, 2):
        oracle.step(make_tensors(SHAPES, step), lr=0.05, max_grad_norm=1.0)
    for weights, _ in run_on_ranks(torch.Size(mesh_shape).numel(), step_with, mesh_shape, layouts):
        for weight, expected in zip(weights, oracle.weights, strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-12, atol=1e-14)


def test_terms_of_all_gradients_on_one_mesh_share_a_collective() -> None:
    terms: list[Layout] = [((ALL,), (TERMS,))] * len(SHAPES)
    assert [collectives for _, collectives in run_on_ranks(2, step_with, (2,), terms)] == [1, 1]


def test_a_nan_in_the_terms_of_one_rank_is_skipped_by_all() -> None:
    layouts: list[Layout] = [((ALL,), (TERMS,)), *[((ROWS,), (ALL,))] * 4]
    oracle = Oracle(make_tensors(SHAPES, 0))
    oracle.step(make_tensors(SHAPES, 1), lr=0.05, max_grad_norm=1.0)
    for weights, _ in run_on_ranks(2, step_with, (2,), layouts, 1):
        for weight, expected in zip(weights, oracle.weights, strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-12, atol=1e-14)
