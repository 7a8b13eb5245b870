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
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
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


def cuts_of(shape: Sequence[int], mesh_dims: int) -> st.SearchStrategy[Cut]:
    placements: list[Placement] = [ALL, *(Shard(dim) for dim in range(len(shape)))]
    return st.none() | st.tuples(*[st.sampled_from(placements)] * mesh_dims)


@st.composite
def models(draw: st.DrawFn) -> tuple[tuple[int, ...], list[list[int]], list[Cut]]:
    mesh_shape: tuple[int, ...] = draw(st.sampled_from([(1,), (2,), (3,), (4,), (2, 2)]))
    shapes = draw(st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=4))
    return mesh_shape, shapes, [draw(cuts_of(shape, len(mesh_shape))) for shape in shapes]


def cut_dims(mesh_shape: tuple[int, ...], cut: Cut) -> tuple[int, ...]:
    return tuple(dim for dim, size in enumerate(mesh_shape) if size > 1 and cut and cut[dim] is not ALL)


@given(
    model=models(),
    switches=st.fixed_dictionaries(
        {
            "lr": st.just(0.05),
            "bias_correction": st.booleans(),
            "grad_averaging": st.booleans(),
            "max_grad_norm": st.sampled_from([None, 0.3, 1e6]),
            "weight_norm_bounds": st.sampled_from([None, (1e-3, 10.0)]),
            "trust_ratio_bounds": st.sampled_from([None, (0.01, 0.3)]),
            "layer_adaptation": st.sampled_from([True, False, "decayed"]),
            "weight_decay": st.sampled_from([0.0, 0.01]),
        }
    ),
    skip_nonfinite=st.booleans(),
)
@settings(max_examples=16, deadline=None)
def test_any_model_cut_in_any_way_follows_the_oracle(
    model: tuple[tuple[int, ...], list[list[int]], list[Cut]], switches: dict[str, Any], skip_nonfinite: bool
) -> None:
    mesh_shape, shapes, cuts = model
    ours = {**switches, "skip_nonfinite": skip_nonfinite}
    ranks = run_on_ranks(torch.Size(mesh_shape).numel(), train, mesh_shape, cuts, ours, torch.float64, shapes)
    sums = 2 if switches["max_grad_norm"] or skip_nonfinite else 1
    adapted = switches["layer_adaptation"]
    oracles = switches | {"layer_adaptation": switches["weight_decay"] != 0 if adapted == "decayed" else adapted}
    check(ranks, sums * sum(map(len, {cut_dims(mesh_shape, cut) for cut in cuts})), oracles, shapes)


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


def meet_nan_beside_another_mesh() -> tuple[bool, float]:
    """Take a step on a tensor cut over all ranks and one cut over half of them, with a NaN on the last rank alone."""
    world, halves = init_device_mesh("cpu", (4,)), init_device_mesh("cpu", (2, 2), mesh_dim_names=("a", "b"))
    wide = nn.Parameter(distribute_tensor(torch.ones(8), world, [ROWS]))
    narrow = nn.Parameter(distribute_tensor(torch.ones(4), halves["b"], [ROWS]))
    optimizer = Lamb([wide, narrow], **SETTINGS)
    wide.grad, narrow.grad = torch.ones_like(wide), torch.ones_like(narrow)
    if dist.get_rank() == 3:
        narrow.grad.to_local()[0] = float("nan")  # type: ignore[attr-defined]
    optimizer.step()
    assert optimizer.last_step is not None
    return bool(optimizer.last_step.skipped), optimizer.state[wide]["step"].item()


def test_a_nan_in_a_smaller_mesh_is_skipped_by_all_ranks_of_the_larger() -> None:
    assert run_on_ranks(4, meet_nan_beside_another_mesh) == [(True, 0.0)] * 4


def held(optimizer: Lamb) -> list[Tensor]:
    """Return all that a step may write, as this rank holds it."""
    parameters = optimizer.param_groups[0]["params"]
    tensors = [*parameters, *(tensor for p in parameters for tensor in optimizer.state[p].values())]
    return [(t.to_local() if isinstance(t, DTensor) else t).detach() for t in tensors]


@pytest.mark.parametrize("bad_tensor", [0, 1], ids=["in a sharded tensor", "in a plain tensor"])
def test_a_nan_on_one_rank_is_skipped_by_all(bad_tensor: int) -> None:
    for outcome in run_on_ranks(3, meet_nan, bad_tensor):
        assert outcome == Outcome([False, True, False], [False, True, False], [2.0, 2.0])


def test_a_plain_tensor_has_no_groups() -> None:
    assert shard_groups("w", torch.ones(3)) == ()


PRESENT = [(0, 1, 2, 3, 4), (1, 3), (1, 3), (0, 2, 4), (0, 1, 2, 3, 4), (4,)]
CHANGED: dict[int, dict[str, Any]] = {i: {"lr": 0.2, "weight_decay": 0.0} for i in (2, 3, 4)}


def train_with_gradients_that_come_and_go() -> list[Tensor]:
    mesh = init_device_mesh("cpu", (2,))
    cuts = [ROWS, ALL, ROWS, COLUMNS, None]

    def cut(tensor: Tensor, placement: Placement | None) -> Tensor:
        return tensor if placement is None else distribute_tensor(tensor, mesh, [placement])

    parameters = [nn.Parameter(cut(t, c)) for t, c in zip(make_tensors(SHAPES, 0), cuts, strict=True)]
    optimizer = Lamb([{"params": parameters[:3]}, {"params": parameters[3:], **CHANGED[3]}], **SETTINGS)
    for step, present in enumerate(PRESENT):
        if step == 2:  # only the sizes of the groups change
            optimizer.param_groups[1]["params"].insert(0, optimizer.param_groups[0]["params"].pop())
        if step == 3:
            for parameter in parameters[:2]:
                parameter.data = parameter.detach().clone()
        gradients = make_tensors(SHAPES, 1 + step)
        for i, (parameter, placement) in enumerate(zip(parameters, cuts, strict=True)):
            own = cut(gradients[i], placement)
            if step == 4 and i == 1:  # its calls must not be kept for the next step
                own = DTensor.from_local(gradients[i] / 2, mesh, [Partial()])
            parameter.grad = own if i in present else None
        optimizer.step()
    return [whole(p) for p in parameters]


def test_sharded_tensors_whose_gradients_come_and_go_follow_the_oracle() -> None:
    oracle = Oracle(make_tensors(SHAPES, 0))
    for step, present in enumerate(PRESENT):
        gradients = [g if i in present else None for i, g in enumerate(make_tensors(SHAPES, 1 + step))]
        own = {i: CHANGED[i] for i in ((3, 4) if step < 2 else (2, 3, 4))}
        oracle.step(gradients, own, **SETTINGS)
    for weights in run_on_ranks(2, train_with_gradients_that_come_and_go):
        for weight, expected in zip(weights, oracle.weights, strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-12, atol=1e-14)
