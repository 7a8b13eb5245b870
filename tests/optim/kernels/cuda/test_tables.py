"""What kernels are told of tensors, and that it is made and uploaded once."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from optim.kernels.cuda import places, tables
from optim.kernels.settings import Settings, table

HOST = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache() -> Iterator[None]:
    """Begin and end with nothing kept."""
    tables._cache.clear()
    yield
    tables._cache.clear()


def room(elements: int) -> Tensor:
    """Return float32 that begins at an address which 64 divides."""
    bytes_ = torch.empty(elements * 4 + 64, dtype=torch.uint8)
    start = -bytes_.data_ptr() % 64
    return bytes_[start : start + elements * 4].view(torch.float32)


def test_every_element_belongs_to_one_chunk_of_its_tensor() -> None:
    tensors = [torch.empty(n) for n in (10, 0, 3, 4, 9)]
    layout = tables.layout(tensors, 4)
    numel, first, owners = layout.table.tensor_split([5, 10])
    assert numel.tolist() == [10, 0, 3, 4, 9]
    assert owners.tolist() == [0, 0, 0, 2, 3, 4, 4, 4]
    assert [owners.tolist().index(t) for t in (0, 2, 3, 4)] == first[[0, 2, 3, 4]].tolist()
    assert layout.chunks == 8


def test_tensors_without_elements_have_no_chunks() -> None:
    layout = tables.layout([torch.empty(0), torch.empty(3, 0)], 4)
    assert layout.chunks == 0
    assert layout.table.tolist() == [0, 0, 0, 0]


def test_addresses_stand_in_the_rows_that_the_kernels_read() -> None:
    names = ("WEIGHTS", "EXP_AVGS", "EXP_AVG_SQS", "COPIES", "FIRST_SCALES", "SECOND_SCALES", "STEPS")
    expected = {name: [room(4), room(1)] for name in names}
    *lists, steps = expected.values()
    rows = tables.addresses(*lists, steps=steps).table
    assert {name: rows[getattr(places, name).value].tolist() for name in expected} == {
        name: [tensor.data_ptr() for tensor in tensors] for name, tensors in expected.items()
    }
    assert tables.addresses(*lists[:3], [], steps=steps).table[places.COPIES.value].tolist() == [0, 0]
    assert tables.addresses(steps).table.tolist() == [[tensor.data_ptr() for tensor in steps]]


def test_one_tensor_that_is_not_aligned_is_enough_to_read_number_by_number() -> None:
    weights, moments, steps = [room(4), room(8)[4:]], [room(4), room(4)], [room(2)[1:], room(1)]
    assert tables.addresses(weights, moments, [], steps=steps).aligned
    assert not tables.addresses([weights[0], room(5)[1:]], moments, steps=steps).aligned
    assert not tables.addresses(weights, moments, [room(5)[1:], room(4)], steps=steps).aligned


def test_powers_of_beta_follow_from_the_logarithms_of_the_settings() -> None:
    rows = table(((Settings(beta1=0.8, beta2=0.95), 1), (Settings(beta1=0.0), 1), (Settings(bias_correction=0.0), 1)))
    kept = tables.settings(rows, HOST)
    assert kept.shape == (3, places.COLUMNS.value)
    assert kept[:, : rows.shape[1]].equal(rows)
    powers = (3 * kept[:, [places.LOG_BETA1.value, places.LOG_BETA2.value]]).exp()
    expected = torch.tensor([[0.8**3, 0.95**3], [0.0, 0.999**3], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(powers, expected, rtol=1e-15, atol=0)


def test_the_columns_of_settings_are_those_of_the_table() -> None:
    named = {name: getattr(places, name.upper()).value for name in Settings._fields}
    assert list(named.values()) == list(range(len(Settings._fields)))


def test_the_same_tensors_find_the_tables_that_are_there() -> None:
    weights, rows = [room(4), room(9)], table(((Settings(), 2),))
    assert tables.layout(weights, 4).table is tables.layout([room(4), room(9)], 4).table
    assert tables.addresses(weights, weights).table is tables.addresses(weights, weights).table
    assert tables.settings(rows, HOST) is tables.settings(rows, HOST)


def test_what_has_changed_gets_a_table_of_its_own() -> None:
    weights, rows = [room(4), room(9)], table(((Settings(), 2),))
    assert tables.layout(weights, 4).table is not tables.layout(weights, 8).table
    assert tables.layout(weights, 4).table is not tables.layout(weights[::-1], 4).table
    assert tables.addresses(weights).table is not tables.addresses(weights[::-1]).table
    assert tables.addresses(weights).table is not tables.addresses(weights, weights).table
    assert tables.settings(rows, HOST) is not tables.settings(table(((Settings(eps=1.0), 2),)), HOST)


def test_tables_are_made_on_the_host_whatever_the_default_device() -> None:
    weights = [room(4), room(9)]
    with torch.device("meta"):
        made = tables.layout(weights, 4).table, tables.addresses(weights).table
    assert [table.device for table in made] == [HOST, HOST]


def test_settings_live_as_long_as_their_table_so_no_other_can_take_their_identity() -> None:
    made = [tables.settings(torch.full((1, 11), float(i), dtype=torch.float64), HOST) for i in range(5)]
    assert [rows[0, 0].item() for rows in made] == [0, 1, 2, 3, 4]


def test_tables_that_nobody_asks_for_go_when_there_are_too_many() -> None:
    weights = [room(4)]
    often, once = tables.addresses(weights).table, tables.layout([room(1)], 4).table
    for n in range(2, tables.KEPT + 2):
        tables.layout([torch.empty(n)], 4)
        assert tables.addresses(weights).table is often
    assert len(tables._cache) == tables.KEPT
    assert tables.layout([room(1)], 4).table is not once
