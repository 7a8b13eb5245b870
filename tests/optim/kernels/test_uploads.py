"""What is made on the host lies on the device until its key changes."""

import torch
from torch import Tensor

from optim.kernels.operands import Memory
from optim.kernels.uploads import _captured_upload, _spare, resident


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


def test_tables_of_one_size_share_spare_memory_whatever_their_shapes_and_dtypes() -> None:
    memory, host = Memory(), torch.device("cpu")
    rates, gradients, map_ = torch.tensor([0.1, 0.2]).double(), torch.tensor([[7, 8]]), torch.tensor([[1.0, 2], [3, 4]])
    for table in (rates, gradients, map_):
        assert table.nbytes == 16
        _spare(memory, 2).append(torch.zeros(2, dtype=torch.int64))
        made = _captured_upload(memory, table, host)
        assert made.device.equal(table)
        assert made.device.dtype is table.dtype
        assert _spare(memory, 2) == []
