"""What is noticed about tensors between two steps, by torch's own guard and by the one in Python."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from optim.step import kinds
from optim.step.kinds import Compared, Guard, Kinds, guard

GUARDS = [pytest.param(guard, id="torch's"), pytest.param(Compared, id="Python's")]


def make() -> list[Tensor]:
    return [nn.Parameter(torch.ones(4, 3)), torch.ones(3, 4, dtype=torch.float64), torch.ones(())]


def test_this_torch_has_the_guard_in_cpp() -> None:
    assert guard is not Compared


@pytest.mark.parametrize("guard", GUARDS)
@torch.no_grad()
def test_other_tensors_of_the_same_kinds_are_as_good(guard: Callable[..., Guard]) -> None:
    assert guard(*make()).check(*make())


OTHERS = {
    "type": torch.ones(4, 3),
    "dtype": nn.Parameter(torch.ones(4, 3, dtype=torch.bfloat16)),
    "device": nn.Parameter(torch.ones(4, 3, device="meta")),
    "layout": nn.Parameter(torch.ones(4, 3).to_sparse()),
    "shape": nn.Parameter(torch.ones(3, 4)),
    "dimensions": nn.Parameter(torch.ones(12)),
    "strides": nn.Parameter(torch.ones(3, 4).t()),
    "nothing": None,
    "no tensor": 1.0,
}


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
@torch.no_grad()
def test_a_tensor_of_another_kind_is_noticed(guard: Callable[..., Guard], other: object) -> None:
    _, *rest = make()
    assert not guard(*make()).check(other, *rest)
    assert not guard(*rest, make()[0]).check(*rest, other)


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("data", [torch.ones(3, 4), torch.ones(3, 4).t(), torch.ones(4, 3, dtype=torch.float16)])
@torch.no_grad()
def test_a_tensor_that_becomes_another_is_noticed(guard: Callable[..., Guard], data: Tensor) -> None:
    tensors = make()
    before = guard(*tensors)
    tensors[0].data = data
    assert not before.check(*tensors)


@pytest.mark.parametrize("guard", GUARDS)
@torch.no_grad()
def test_the_placements_of_a_dtensor_are_part_of_its_kind(
    guard: Callable[..., Guard], mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "guard", guard)
    part = torch.ones(4, 3)
    sharded, again, replicated = (
        DTensor.from_local(part.clone(), mesh, [placement]) for placement in (Shard(0), Shard(0), Replicate())
    )
    before = Kinds([[sharded, part]])
    found = before.parts_of([[again, part]])
    assert found is not None
    assert found[0][0] is again.to_local()
    assert found[0][1] is part
    assert before.parts_of([[replicated, part]]) is None
    assert before.parts_of([[part, sharded]]) is None
