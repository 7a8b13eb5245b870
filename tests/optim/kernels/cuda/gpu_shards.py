"""Tensors cut over ranks, on the device of this machine: `scripts/gpu-check` runs these tests.

One GPU has no shards, so their path is forced there: the rows of each tensor are cut in parts, whose sums are added as
a collective would; and a mesh of one rank is taken for one that shards. Two GPUs have two ranks. On a CPU the same is
walked with its kernels.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.multiprocessing.spawn import start_processes

from optim import Lamb, sharding
from optim.kernels import operators
from optim.kernels.operands import Operands
from optim.kernels.settings import Settings, table
from tests.optim.kernels.cuda.interpreted import DEVICE
from tests.optim.oracle import Oracle, make_tensors

SHAPES = [(7, 3), (2, 5), (1, 4), (300, 70), (0, 3)]
"""Of 2 and 3 parts some are uneven or empty."""

LR, MAX_GRAD_NORM, STEPS = 0.05, 1.0, 3


def make(seed: int) -> list[Tensor]:
    return [tensor.to(DEVICE) for tensor in make_tensors(SHAPES, seed, torch.float32)]


def assert_follows(weights: list[Tensor], oracle: Oracle) -> None:
    for weight, expected in zip(weights, oracle.weights, strict=True):
        torch.testing.assert_close(weight.detach().cpu().double(), expected, rtol=2e-6, atol=1e-7)


def begin() -> Oracle:
    return Oracle([tensor.cpu() for tensor in make(0)])


def follow(oracle: Oracle, step: int) -> None:
    oracle.step([tensor.cpu() for tensor in make(step)], lr=LR, max_grad_norm=MAX_GRAD_NORM)


def part_of(tensors: list[Tensor], part: int, parts: int) -> list[Tensor]:
    """Return a part of the rows of each tensor, in memory of its own."""
    return [tensor.tensor_split(parts)[part].clone() for tensor in tensors]


def operands_of(weights: list[Tensor]) -> Operands:
    """Return tensors that have taken no step; gradients come with each."""
    states = [[torch.zeros_like(weight) for weight in weights] for _ in range(2)]
    steps = [torch.zeros((), device=DEVICE) for _ in weights]
    settings = table([Settings(beta3=1 - 0.9, weight_decay=0.01)] * len(weights))
    return Operands(weights, [], states[0], states[1], steps, settings=settings)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_of_tensors_whose_sums_are_added_follow_the_oracle(parts: int) -> None:
    ranks = [operands_of(part_of(make(0), part, parts)) for part in range(parts)]
    lr = torch.full((len(SHAPES),), LR, dtype=torch.float64, device=DEVICE)
    oracle = begin()
    for step in range(1, STEPS + 1):
        follow(oracle, step)
        ranks = [replace(each, grads=part_of(make(step), part, parts)) for part, each in enumerate(ranks)]
        kernels = operators.fastest(next(ranks[0].each()))
        squares = torch.stack([kernels.sum_squares(each) for each in ranks]).sum(dim=0)
        clip = kernels.lamb_clip(squares, MAX_GRAD_NORM, True)
        sums = torch.stack([kernels.lamb_update(each, clip) for each in ranks]).sum(dim=0)
        for each in ranks:
            kernels.lamb_apply(each, kernels.lamb_ratio(each, sums, clip, lr)[3])
    assert_follows([torch.cat(parts) for parts in zip(*(each.weights for each in ranks), strict=True)], oracle)


def join(rank: int, ranks: int, folder: Path) -> DeviceMesh:
    """Join a process group of this device, and return its mesh."""
    device = torch.device(DEVICE.type, rank) if DEVICE.type == "cuda" else None
    if device is not None:
        torch.cuda.set_device(device)
    backend = "gloo" if device is None else "nccl"
    store = f"file://{folder / 'store'}"
    dist.init_process_group(backend, store, rank=rank, world_size=ranks, device_id=device)
    return init_device_mesh(DEVICE.type, (ranks,))


def train(mesh: DeviceMesh) -> None:
    """Train tensors that are sharded over a mesh, and compare them with the oracle."""
    parameters = [nn.Parameter(distribute_tensor(tensor, mesh, [Shard(0)])) for tensor in make(0)]
    assert sharding.shard_groups("a parameter", parameters[0]) == (mesh.get_group(),)
    optimizer, oracle = Lamb(parameters, lr=LR, max_grad_norm=MAX_GRAD_NORM), begin()
    for step in range(1, STEPS + 1):
        follow(oracle, step)
        for parameter, gradient in zip(parameters, make(step), strict=True):
            parameter.grad = distribute_tensor(gradient, mesh, [Shard(0)])
        optimizer.step()
    whole = [parameter.full_tensor() for parameter in parameters if isinstance(parameter, DTensor)]
    assert_follows(whole, oracle)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[DeviceMesh]:
    yield join(0, 1, tmp_path)
    dist.destroy_process_group()


def test_a_mesh_of_one_rank_that_is_taken_for_sharded_follows_the_oracle(
    one_rank: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "FEWEST_RANKS", 1)
    train(one_rank)


def on_rank(rank: int, folder: Path) -> None:
    train(join(rank, 2, folder))
    dist.destroy_process_group()


@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="one GPU: two ranks need two")
def test_two_ranks_follow_the_oracle(tmp_path: Path) -> None:
    start_processes(on_rank, (tmp_path,), 2, start_method="spawn")  # type: ignore[no-untyped-call]
