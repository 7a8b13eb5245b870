"""What is made on the host lies on the device until its key changes."""

import torch
from torch import Tensor

from optim.kernels.operands import Memory
from optim.kernels.uploads import resident


def test_a_table_is_made_once_for_a_key_a_name_and_a_device() -> None:
    memory = Memory()
    made: list[Tensor] = []

    def make() -> Tensor:
        made.append(torch.arange(len(made), len(made) + 3))
        return made[-1]

    host, meta = torch.device("cpu"), torch.device("meta")
    first = resident(memory, "rates", 1, host, make)
    assert resident(memory, "rates", 1, host, make) is first
    assert resident(memory, "rates", 2, host, make).tolist() == [1, 2, 3]
    assert resident(memory, "groups", 2, host, make).tolist() == [2, 3, 4]
    assert resident(memory, "groups", 2, meta, make).device == meta
    assert len(made) == 4
