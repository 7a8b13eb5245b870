"""What an optimizer says of itself."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from optim import Lamb
from tests.ranks import run_on_ranks


def test_a_description_names_what_matters() -> None:
    groups: list[dict[str, Any]] = [
        {"params": [nn.Parameter(torch.ones(5, 3))]},
        {"params": [nn.Parameter(torch.ones(4))], "lr": 0.5, "moments": "8bit"},
    ]
    text = Lamb(groups, max_grad_norm=1.0).describe()
    assert "2 tensors, 19 elements; 0 sharded, 0 collectives a step" in text
    assert "max_grad_norm=1.0" in text
    assert "group 1: 1 tensors, 4 elements, lr=0.5" in text
    assert "moments='8bit'" in text


def describe_with_a_group() -> str:
    return Lamb([nn.Parameter(torch.ones(2))], process_group=dist.group.WORLD).describe()


def test_a_process_group_costs_one_collective() -> None:
    (text,) = run_on_ranks(1, describe_with_a_group)
    assert "0 sharded, 1 collectives a step" in text
