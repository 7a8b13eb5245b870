"""What parameters are called, and that each counts once."""

from typing import Any

import pytest
import torch
from torch import nn

from optim import Lamb
from optim.groups import named


def test_parameters_without_names_are_called_by_their_number_over_all_groups() -> None:
    tensors = [torch.zeros(1) for _ in range(4)]
    groups: list[dict[str, Any]] = [
        {"params": tensors[:2]},
        {"params": tensors[2:3], "param_names": ["bias"]},
        {"params": tensors[3:]},
    ]
    found = list(named(groups))
    assert [(each.group, each.name) for each in found] == [(0, "0"), (0, "1"), (1, "bias"), (2, "3")]
    assert all(each.parameter is tensor for each, tensor in zip(found, tensors, strict=True))


def test_tied_weights_count_once() -> None:
    shared, bias = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4))
    optimizer = Lamb([("embedding", shared), ("bias", bias), ("decoder", shared)], max_grad_norm=1.0)
    shared.grad, bias.grad = torch.ones_like(shared), torch.ones_like(bias)
    optimizer.step()
    assert optimizer.last_step is not None
    assert optimizer.last_step.names == ("embedding", "bias")
    assert optimizer.last_step.grad_norm is not None
    assert optimizer.last_step.grad_norm.item() == pytest.approx(4.0)
    assert optimizer.state[shared]["step"].item() == 1.0
