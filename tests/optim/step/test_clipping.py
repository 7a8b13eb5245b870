"""The norm of all gradients: under a gradient scaler, over a process group, and where somebody else has taken it."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.utils import clip_grad_norm_

from optim import Lamb
from tests.optim.oracle import Oracle, make_tensors
from tests.optim.test_lamb import NoReadBack
from tests.ranks import run_on_ranks

SHAPES = [(4, 3), (5,)]
SCALE = 1024.0


def scaled_step(parameters: list[nn.Parameter], optimizer: Lamb, scaler: Any, grads: list[Tensor]) -> None:
    """Take a step with gradients that are the scaler's scale times `grads`."""
    loss = sum((p.float() * g).sum() for p, g in zip(parameters, grads, strict=True))
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize(
    "switches", [{}, {"max_grad_norm": 0.5}, {"skip_nonfinite": False}, {"max_grad_norm": 100.0}], ids=str
)
def test_float16_with_masters_under_a_scaler_follows_the_oracle(switches: dict[str, Any], backend: str) -> None:
    parameters = [nn.Parameter(start.half()) for start in make_tensors(SHAPES, 0)]
    oracle = Oracle(parameters)
    optimizer = Lamb(parameters, lr=0.05, master_weights=True, backend=backend, **switches)
    scaler: Any = torch.amp.GradScaler("cpu", init_scale=SCALE)
    settings = {key: value for key, value in switches.items() if key != "skip_nonfinite"}
    for step in (1, 2, 3):
        grads = [(16 * g).round() / 16 for g in make_tensors(SHAPES, step, torch.float32)]  # exact in float16 x 1024
        made = oracle.step(grads, lr=0.05, **settings)
        scaled_step(parameters, optimizer, scaler, grads)
        scaler.update()
        last = optimizer.last_step
        assert last is not None
        norm = math.sqrt(sum(g.double().square().sum().item() for g in grads))
        assert last.grad_norm is not None
        assert last.grad_norm.item() == pytest.approx(norm, rel=1e-12)
        assert last.clip_coef.item() == pytest.approx(made[0].clip_coef, rel=1e-12)
        for i, parameter in enumerate(parameters):
            master = optimizer.state[parameter]["master"]
            torch.testing.assert_close(master.double(), oracle.weights[i], rtol=2e-6, atol=2e-7)
            assert torch.equal(parameter.detach(), master.half())


@pytest.mark.parametrize("skip_nonfinite", [True, False])
def test_a_step_in_which_the_scaler_found_an_inf_changes_no_bit_and_lowers_the_scale(skip_nonfinite: bool) -> None:
    parameters = [nn.Parameter(start.half()) for start in make_tensors(SHAPES, 0)]
    optimizer = Lamb(parameters, master_weights=True, skip_nonfinite=skip_nonfinite)
    scaler: Any = torch.amp.GradScaler("cpu", init_scale=SCALE)
    scaled_step(parameters, optimizer, scaler, [torch.ones(p.shape) for p in parameters])
    scaler.update()
    before = copy.deepcopy([p.detach() for p in parameters]), copy.deepcopy(list(optimizer.state.values()))
    scaled_step(parameters, optimizer, scaler, [torch.ones(4, 3), torch.full((5,), 1e5)])  # beyond float16
    scaler.update()
    assert optimizer.last_step is not None
    assert optimizer.last_step.skipped
    assert scaler.get_scale() == SCALE / 2
    for now, then in zip(parameters, before[0], strict=True):
        assert torch.equal(now.detach(), then)
    for now, then in zip(optimizer.state.values(), before[1], strict=True):
        assert all(torch.equal(now[key], then[key]) for key in then)


def test_a_step_under_a_scaler_reads_nothing_back_from_the_device() -> None:
    parameters = [nn.Parameter(start) for start in make_tensors(SHAPES, 0, torch.float32)]
    optimizer: Any = Lamb(parameters, backend="eager")
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(8.0), torch.tensor(0.0)
    optimizer.step()
    with NoReadBack():  # type: ignore[no-untyped-call]
        optimizer.step()
    assert optimizer.last_step.clip_coef.item() == 1.0
    assert optimizer.state[parameters[0]]["exp_avg"][0, 0].item() == pytest.approx((1 - 0.9**2) / 8)


def scale_on_shards(bad: bool) -> tuple[list[Tensor], float, bool]:
    torch.manual_seed(0)
    model = nn.Linear(3, 5)
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = Lamb(model.parameters(), lr=0.05, max_grad_norm=0.5)
    scaler: Any = torch.amp.GradScaler("cpu", init_scale=SCALE)
    scaler.scale(model(torch.ones(2, 3)).square().sum()).backward()
    if bad and dist.get_rank() == 0:
        grad = model.weight.grad
        assert isinstance(grad, DTensor)
        grad.to_local().fill_(math.inf)
    scaler.step(optimizer)
    scaler.update()
    assert optimizer.last_step is not None
    whole = [p.full_tensor().detach() for p in model.parameters() if isinstance(p, DTensor)]
    return whole, scaler.get_scale(), bool(optimizer.last_step.skipped)


@pytest.mark.parametrize("bad", [False, True])
def test_a_scaler_and_lamb_agree_on_shards(bad: bool) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 5)
    oracle = Oracle([model.weight, model.bias])
    model(torch.ones(2, 3)).square().sum().backward()
    if not bad:
        oracle.step([model.weight.grad, model.bias.grad], lr=0.05, max_grad_norm=0.5)
    for weights, scale, skipped in run_on_ranks(2, scale_on_shards, bad):
        assert (scale, skipped) == ((SCALE / 2, True) if bad else (SCALE, False))
        for weight, expected in zip(weights, oracle.weights, strict=True):
            torch.testing.assert_close(weight.double(), expected, rtol=2e-6, atol=2e-7)


def step_a_stage(kind: str) -> tuple[Tensor, float, bool, int]:
    """Step this rank's stage of a pipeline; return its weight, the norm, whether it was skipped, and collectives."""
    rank = dist.get_rank()
    stage = nn.Parameter(make_tensors([(3, 2)], rank)[0])
    optimizer = Lamb([stage], lr=0.05, max_grad_norm=0.1, process_group=dist.group.WORLD)
    if not (kind == "nothing" and rank == 1):  # a rank without gradients still takes part in the sum
        (stage.grad,) = make_tensors([(3, 2)], 10 + rank)
    if kind == "nan" and rank == 0 and stage.grad is not None:
        stage.grad[0, 0] = math.nan
    with CommDebugMode() as counted:  # type: ignore[no-untyped-call]
        optimizer.step()
    last = optimizer.last_step
    assert last is not None
    assert last.grad_norm is not None
    assert len(last.trust_ratio) == len(last.names) == (stage.grad is not None)
    return stage.detach(), last.grad_norm.item(), bool(last.skipped), counted.get_total_counts()


@pytest.mark.parametrize("kind", ["all", "nan", "nothing"])
def test_the_stages_of_a_pipeline_clip_and_skip_together_for_one_collective(kind: str) -> None:
    oracle = Oracle([make_tensors([(3, 2)], rank)[0] for rank in (0, 1)])
    grads: list[Tensor | None] = [make_tensors([(3, 2)], 10 + rank)[0] for rank in (0, 1)]
    if kind == "nothing":
        grads[1] = None
    if kind != "nan":
        oracle.step(grads, lr=0.05, max_grad_norm=0.1)
    norm = math.nan if kind == "nan" else math.sqrt(sum(g.square().sum().item() for g in grads if g is not None))
    for rank, (weight, found, skipped, collectives) in enumerate(run_on_ranks(2, step_a_stage, kind)):
        torch.testing.assert_close(weight, oracle.weights[rank], rtol=1e-12, atol=1e-14)
        assert found == pytest.approx(norm, rel=1e-12, nan_ok=True)
        assert skipped is (kind == "nan")
        assert collectives == 1


@pytest.mark.parametrize("group", [1, "world", -100])
def test_what_is_no_process_group_of_this_rank_is_refused(group: Any) -> None:
    with pytest.raises(TypeError, match=rf"process_group is {group!r}; it must be None or a process group that this"):
        Lamb([nn.Parameter(torch.ones(2))], process_group=group)


@pytest.mark.parametrize("as_number", [False, True])
def test_a_norm_that_was_taken_already_is_not_taken_again(as_number: bool) -> None:
    parameters = [nn.Parameter(start) for start in make_tensors(SHAPES, 0)]
    oracle = Oracle(parameters)
    optimizer = Lamb(parameters, lr=0.05)
    grads = make_tensors(SHAPES, 1)
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad.clone()
    norm = clip_grad_norm_(parameters, 0.5)
    oracle.step(grads, lr=0.05, max_grad_norm=0.5)
    optimizer.step(grad_norm=norm.item() if as_number else norm)
    assert optimizer.last_step is not None
    assert optimizer.last_step.grad_norm is not None
    assert optimizer.last_step.grad_norm.item() == pytest.approx(norm.item(), rel=1e-14)
    for parameter, expected in zip(parameters, oracle.weights, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=1e-8)  # it adds 1e-6 to the norm
    moved = [parameter.detach().clone() for parameter in parameters]
    optimizer.step(grad_norm=math.inf)
    assert optimizer.last_step.skipped
    assert all(torch.equal(p.detach(), then) for p, then in zip(parameters, moved, strict=True))
