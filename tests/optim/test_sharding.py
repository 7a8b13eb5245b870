"""Lamb on real ranks: every way in which tensors are cut gives what one rank gives."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import Placement

from optim import Lamb
from optim.sharding import shard_groups
from tests.optim.oracle import Oracle, make_tensors
from tests.ranks import run_on_ranks

# 7 rows on 2 ranks are 4 + 3, 2 rows on 3 ranks leave one rank without any, and so does 1 row on 2.
SHAPES = [(7, 3), (2, 4), (1,), (6, 5), (9,)]
SETTINGS: dict[str, Any] = {"lr": 0.05, "max_grad_norm": 1.0}
ROWS, COLUMNS, ALL = Shard(0), Shard(1), Replicate()
Cut = tuple[Placement, ...] | None  # None: a plain tensor


class Trained(NamedTuple):
    weights: list[Tensor]
    ratios: list[list[float]]
    collectives: list[int]
    local_sizes: list[int]


def train(
    mesh_shape: tuple[int, ...],
    cuts: Sequence[Cut],
    switches: dict[str, Any] = SETTINGS,
    dtype: torch.dtype = torch.float64,
    shapes: Sequence[Sequence[int]] = SHAPES,
) -> Trained:
    mesh = init_device_mesh("cpu", mesh_shape)

    def cut(tensor: Tensor, placements: Cut) -> Tensor:
        return tensor if placements is None else distribute_tensor(tensor, mesh, placements)

    parameters = [nn.Parameter(cut(t, c)) for t, c in zip(make_tensors(shapes, 0, dtype), cuts, strict=True)]
    optimizer = Lamb(parameters, **switches)
    ratios, collectives = [], []
    for step in range(1, 4):
        for parameter, gradient, placements in zip(parameters, make_tensors(shapes, step, dtype), cuts, strict=True):
            parameter.grad = cut(gradient, placements)
        with CommDebugMode() as counted:  # type: ignore[no-untyped-call]
            optimizer.step()
        assert optimizer.last_step is not None
        by_name = dict(zip(optimizer.last_step.names, optimizer.last_step.trust_ratio.tolist(), strict=True))
        ratios.append([by_name[str(i)] for i in range(len(shapes))])
        collectives.append(counted.get_total_counts())
    sizes = [p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters]
    return Trained([whole(p) for p in parameters], ratios, collectives, sizes)


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def check(
    ranks: Sequence[Trained],
    collectives: int,
    switches: dict[str, Any] = SETTINGS,
    shapes: Sequence[Sequence[int]] = SHAPES,
) -> None:
    """Every rank's numbers are the oracle's, and each step had so many collectives."""
    oracle = Oracle(make_tensors(shapes, 0))
    made = [oracle.step(make_tensors(shapes, step), **switches) for step in range(1, 4)]
    for trained in ranks:
        for weight, expected in zip(trained.weights, oracle.weights, strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-12, atol=1e-14)
        for ratios, steps in zip(trained.ratios, made, strict=True):
            assert ratios == pytest.approx([step.trust_ratio for step in steps.values()], rel=1e-12)
        assert trained.collectives == [collectives] * 3


@pytest.mark.parametrize("world", [1, 2, 3])
def test_rows_on_any_number_of_ranks_follow_the_oracle(world: int) -> None:
    ranks = run_on_ranks(world, train, (world,), [(ROWS,)] * len(SHAPES))
    check(ranks, collectives=2 if world > 1 else 0)
    sizes = [rank.local_sizes for rank in ranks]
    assert [sum(column) for column in zip(*sizes, strict=True)] == [21, 8, 1, 30, 9]
    if world == 3:
        assert sizes[2][1] == sizes[2][2] == 0


def test_one_collective_is_enough_when_nothing_asks_for_the_gradient_norm() -> None:
    ranks = run_on_ranks(2, train, (2,), [(ROWS,)] * len(SHAPES), {"lr": 0.05, "skip_nonfinite": False})
    check(ranks, collectives=1, switches={"lr": 0.05})


def test_plain_replicated_and_cut_tensors_mix_and_count_once() -> None:
    check(run_on_ranks(3, train, (3,), [(ROWS,), None, (ALL,), (COLUMNS,), None]), collectives=2)


def test_replicas_are_not_summed() -> None:
    check(run_on_ranks(4, train, (2, 2), [(ALL, ROWS)] * len(SHAPES)), collectives=2)


def test_two_cut_dimensions_cost_one_collective_more_each() -> None:
    cuts: list[Cut] = [(ROWS, COLUMNS), (ROWS, COLUMNS), (ALL, ALL), (COLUMNS, ROWS), None]
    check(run_on_ranks(4, train, (2, 2), cuts), collectives=4)


def test_tensors_cut_over_different_dimensions_are_summed_apart() -> None:
    cuts: list[Cut] = [(ROWS, ALL), (ALL, ROWS), (ROWS, ROWS), None, (ROWS, ALL)]
    check(run_on_ranks(4, train, (2, 2), cuts), collectives=8)


def test_the_number_of_ranks_moves_float32_by_last_bits_only() -> None:
    cuts = [(ROWS,)] * len(SHAPES)
    alone = run_on_ranks(1, train, (1,), cuts, SETTINGS, torch.float32)[0]
    for world in (2, 3, 4):
        for trained in run_on_ranks(world, train, (world,), cuts, SETTINGS, torch.float32):
            for weight, expected in zip(trained.weights, alone.weights, strict=True):
                torch.testing.assert_close(weight, expected, rtol=2.4e-7, atol=0)  # two units in the last place


def cuts_of(shape: Sequence[int]) -> st.SearchStrategy[Cut]:
    cuts: list[Cut] = [None, (ALL,), *((Shard(dim),) for dim in range(len(shape)))]
    return st.sampled_from(cuts)


@st.composite
def models(draw: st.DrawFn) -> tuple[list[list[int]], list[Cut]]:
    shapes = draw(st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=4))
    return shapes, [draw(cuts_of(shape)) for shape in shapes]


@given(
    world=st.integers(1, 4),
    model=models(),
    switches=st.fixed_dictionaries(
        {
            "lr": st.just(0.05),
            "bias_correction": st.booleans(),
            "grad_averaging": st.booleans(),
            "max_grad_norm": st.sampled_from([0.3, 1e6]),
            "weight_norm_bounds": st.sampled_from([None, (1e-3, 10.0)]),
            "trust_ratio_bounds": st.sampled_from([None, (0.01, 0.3)]),
        }
    ),
)
@settings(max_examples=12, deadline=None)
def test_any_model_cut_in_any_way_follows_the_oracle(
    world: int, model: tuple[list[list[int]], list[Cut]], switches: dict[str, Any]
) -> None:
    shapes, cuts = model
    any_cut = world > 1 and any(cut is not None and cut[0] is not ALL for cut in cuts)
    ranks = run_on_ranks(world, train, (world,), cuts, switches, torch.float64, shapes)
    check(ranks, 2 if any_cut else 0, switches, shapes)


class Outcome(NamedTuple):
    skipped: list[bool]
    unchanged: list[bool]
    steps: list[float]


def meet_nan(bad_tensor: int) -> Outcome:
    """Take a good step, one with a NaN on rank 1 alone, and a good one."""
    mesh = init_device_mesh("cpu", (3,))
    tensors = make_tensors([(7, 3), (5,)], 0)
    cut, plain = nn.Parameter(distribute_tensor(tensors[0], mesh, (ROWS,))), nn.Parameter(tensors[1])
    optimizer = Lamb([cut, plain], **SETTINGS)
    skipped, unchanged = [], []
    for step in (1, 2, 3):
        gradients = make_tensors([(7, 3), (5,)], step)
        cut.grad, plain.grad = distribute_tensor(gradients[0], mesh, (ROWS,)), gradients[1]
        if step == 2 and dist.get_rank() == 1:
            (cut.grad.to_local() if bad_tensor == 0 else plain.grad)[0] = float("nan")
        before = [tensor.clone() for tensor in held(optimizer)]
        optimizer.step()
        assert optimizer.last_step is not None
        skipped.append(bool(optimizer.last_step.skipped))
        unchanged.append(all(torch.equal(a, b) for a, b in zip(before, held(optimizer), strict=True)))
    return Outcome(skipped, unchanged, [optimizer.state[p]["step"].item() for p in (cut, plain)])


def held(optimizer: Lamb) -> list[Tensor]:
    """Return all that a step may write, as this rank holds it."""
    parameters = optimizer.param_groups[0]["params"]
    tensors = [*parameters, *(tensor for p in parameters for tensor in optimizer.state[p].values())]
    return [(t.to_local() if isinstance(t, DTensor) else t).detach() for t in tensors]


@pytest.mark.parametrize("bad_tensor", [0, 1], ids=["in a cut tensor", "in a plain tensor"])
def test_a_nan_on_one_rank_is_skipped_by_all(bad_tensor: int) -> None:
    for outcome in run_on_ranks(3, meet_nan, bad_tensor):
        assert outcome == Outcome([False, True, False], [False, True, False], [2.0, 2.0])


class Report(NamedTuple):
    weights: list[Tensor]
    placements: str
    collectives: int
    description: str


def train_fsdp(mesh_shape: tuple[int, ...], tensor_parallel: bool = False) -> Report:
    """Three steps of a small network under FSDP2, each data-parallel rank on its own slice of the batch."""
    mesh = init_device_mesh("cpu", mesh_shape, mesh_dim_names=("outer", "inner")[: len(mesh_shape)])
    model, data_mesh = make_network(hidden=8 if tensor_parallel else 7), mesh  # torch's own layers need even parts
    slices, slice_ = dist.get_world_size(), dist.get_rank()
    if tensor_parallel:
        parallelize_module(model, mesh["inner"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        data_mesh, slices, slice_ = mesh["outer"], mesh_shape[0], mesh.get_local_rank("outer")
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=data_mesh)
    optimizer = Lamb(model.named_parameters(), **SETTINGS)
    collectives = set()
    for step in range(1, 4):
        model(make_batch(step).chunk(slices)[slice_]).square().mean().backward()
        with CommDebugMode() as counted:  # type: ignore[no-untyped-call]
            optimizer.step()
        collectives.add(counted.get_total_counts())
        optimizer.zero_grad()
    placements = str([p.placements for p in model.parameters() if isinstance(p, DTensor)])
    return Report([whole(p) for p in model.parameters()], placements, collectives.pop(), optimizer.describe())


def make_network(hidden: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, hidden), nn.Tanh(), nn.Linear(hidden, 3), nn.LayerNorm(3)).double()


def make_batch(step: int) -> Tensor:
    return make_tensors([(12, 5)], 100 + step)[0]


@pytest.mark.parametrize("mesh_shape", [(2,), (3,), (2, 2)], ids=str)
def test_fsdp_trains_like_one_process_on_the_whole_batch(mesh_shape: tuple[int, ...]) -> None:
    for report in run_on_ranks(torch.Size(mesh_shape).numel(), train_fsdp, mesh_shape):
        compare_with_one_process(report, hidden=7)
        assert report.collectives == 2
        assert "6 are cut, 2 collectives a step" in report.description


def test_fsdp_over_tensor_parallelism_with_its_strided_shards_does_too() -> None:
    for report in run_on_ranks(4, train_fsdp, (2, 2), True):
        compare_with_one_process(report, hidden=8)
        assert "_StridedShard" in report.placements
        assert report.collectives == 6  # three for each vector: two for matrices cut both ways, one for the others


def compare_with_one_process(report: Report, hidden: int) -> None:
    model = make_network(hidden)
    optimizer = Lamb(model.named_parameters(), **SETTINGS)
    for step in range(1, 4):
        model(make_batch(step)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for weight, expected in zip(report.weights, model.parameters(), strict=True):
        torch.testing.assert_close(weight, expected.detach(), rtol=1e-9, atol=1e-9)


def refuse_partial() -> str:
    mesh = init_device_mesh("cpu", (1,))
    parameter = nn.Parameter(DTensor.from_local(torch.ones(3), mesh, (Partial(),)))
    with pytest.raises(ValueError, match=r"parameter 'head\.bias' is placed Partial") as raised:
        Lamb([("head.bias", parameter)])
    return str(raised.value)


def test_a_partial_parameter_is_refused_by_name_with_the_remedy() -> None:
    assert "redistribute" in run_on_ranks(1, refuse_partial)[0]


def refuse_misplaced_gradient() -> str:
    mesh = init_device_mesh("cpu", (1,))
    parameter = nn.Parameter(distribute_tensor(torch.ones(3), mesh, (ROWS,)))
    optimizer = Lamb([("w", parameter)])
    parameter.grad = distribute_tensor(torch.ones(3), mesh, (ALL,))
    with pytest.raises(ValueError, match="the gradient of 'w' is placed") as raised:
        optimizer.step()
    assert not optimizer.state
    return str(raised.value)


def test_a_gradient_placed_otherwise_than_its_parameter_is_refused() -> None:
    assert "redistribute the gradient" in run_on_ranks(1, refuse_misplaced_gradient)[0]


def test_a_plain_tensor_has_no_groups() -> None:
    assert shard_groups("w", torch.ones(3)) == ()
