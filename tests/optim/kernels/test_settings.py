"""The table that carries the settings of each tensor."""

import math

import torch

from optim.kernels.settings import Settings, table, unpack


def test_a_row_of_the_table_has_the_settings_in_their_order_and_comes_back_the_same() -> None:
    rows = [Settings(), Settings(*(i / 8 for i in range(11)))]
    made = table(rows)
    assert (made.shape, made.dtype) == ((2, 11), torch.float64)
    assert made[1].tolist() == [i / 8 for i in range(11)]
    assert made[0, 6].item() == math.inf
    assert unpack(made) == rows


def test_a_table_lies_on_the_host_whatever_the_default_device_and_may_be_empty() -> None:
    with torch.device("meta"):
        made = table([Settings()])
    assert made.device == torch.device("cpu")
    assert table([]).shape == (0, 11)
