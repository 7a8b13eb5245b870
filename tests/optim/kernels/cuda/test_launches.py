"""How often a step asks the device for something: what BERT-Large costs, whose step has 398 tensors."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from optim import Lamb
from optim.kernels import operators
from optim.kernels.cuda import launch, tables
from optim.kernels.operands import Memory
from optim.kernels.uploads import resident

TENSORS = 398
FREE = {"aten::empty.memory_format", "aten::select.int", "aten::detach", "aten::alias"}
"""Views and allocations ask the device for nothing."""

KERNELS = ["squares", "total_squares", "clip_gradients", "update", "finish_step", "apply"]


class Asked(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts PyTorch's operators and the kernels of ours; these are not run, for there need be no GPU here."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name not in FREE and not name.startswith("profiler::"):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Count from now on."""
    asked = Asked()

    def note(kernel: Any, *_: Any, **__: Any) -> None:
        asked.count[kernel.__name__] += 1

    monkeypatch.setattr(launch, "_launch", note)
    monkeypatch.setitem(operators.BACKENDS, "triton", lambda _: launch)
    return asked


def make_parameters() -> list[nn.Parameter]:
    """Return 398 tensors with gradients; how many launches a step has does not depend on their sizes."""
    parameters = [nn.Parameter(torch.ones(1 + i % 3)) for i in range(TENSORS)]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    return parameters


def make_optimizer(parameters: list[nn.Parameter], **settings: Any) -> Lamb:
    """Return an optimizer with two groups that has taken a step; the first makes states and tables."""
    groups: list[dict[str, Any]] = [{"params": parameters[:200]}, {"params": parameters[200:], "weight_decay": 0.0}]
    optimizer = Lamb(groups, backend="triton", **settings)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("settings", "kernels"),
    [
        ({"max_grad_norm": 1.0}, KERNELS),
        ({"max_grad_norm": None}, KERNELS),
        ({"max_grad_norm": None, "skip_nonfinite": False}, KERNELS[3:]),
    ],
    ids=["clipping and skipping", "skipping", "neither"],
)
def test_a_step_of_bert_large_is_six_launches_or_three_and_no_other_work(
    settings: dict[str, Any], kernels: list[str], asked: Asked
) -> None:
    optimizer = make_optimizer(make_parameters(), **settings)
    with asked:
        optimizer.step()  # tensors are of another kind while a mode looks on
        asked.count.clear()
        optimizer.step()
    assert asked.count == Counter(kernels)


@pytest.mark.parametrize(
    ("settings", "kernels"),
    [
        ({"max_grad_norm": 1.0}, [*KERNELS[:3], "whole_step"]),
        ({"max_grad_norm": None, "skip_nonfinite": False}, ["whole_step"]),
    ],
    ids=["clipping and skipping", "neither"],
)
def test_at_once_a_step_is_four_launches_or_one_and_no_other_work(
    settings: dict[str, Any], kernels: list[str], asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "AT_ONCE", True)
    optimizer = make_optimizer(make_parameters(), **settings)
    with asked:
        optimizer.step()  # tensors are of another kind while a mode looks on
        asked.count.clear()
        optimizer.step()
    assert asked.count == Counter(kernels)


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the names of tables as they are made."""
    made: list[str] = []

    def note(memory: Memory, name: str, key: object, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
        def noted() -> Tensor:
            made.append(name)
            return make()

        return resident(memory, name, key, device, noted)

    monkeypatch.setattr(tables, "resident", note)
    return made


def test_gradients_that_have_moved_cost_one_upload_for_all_tensors(asked: Asked, uploads: list[str]) -> None:
    parameters = make_parameters()
    optimizer = make_optimizer(parameters, max_grad_norm=1.0)
    held = [parameter.grad for parameter in parameters]  # so that their places are taken
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    asked.count.clear()
    uploads.clear()
    optimizer.step()
    assert uploads == ["gradients"]
    assert asked.count == Counter(KERNELS)
    assert len(held) == TENSORS


def test_a_rate_that_has_changed_costs_no_table(asked: Asked, uploads: list[str]) -> None:
    optimizer = make_optimizer(make_parameters(), max_grad_norm=1.0)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    asked.count.clear()
    uploads.clear()
    optimizer.step()
    assert uploads == []
    assert asked.count == Counter(KERNELS)


@pytest.mark.parametrize("moments", ["bfloat16", "8bit"])
def test_narrow_moments_cost_neither_launch_nor_other_work(moments: str, asked: Asked, uploads: list[str]) -> None:
    optimizer = make_optimizer(make_parameters(), max_grad_norm=1.0, moments=moments)
    asked.count.clear()
    uploads.clear()
    with asked:
        optimizer.step()  # tensors are of another kind while a mode looks on
        asked.count.clear()
        optimizer.step()
    assert uploads == []
    assert asked.count == Counter(KERNELS)
