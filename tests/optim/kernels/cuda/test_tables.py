"""What kernels are told of tensors, and that it is made and uploaded once."""

import copy
import gc
import pickle
import weakref
from dataclasses import replace

import torch
from torch import Tensor

from optim.kernels.cuda import places, tables
from optim.kernels.operands import Memory, Operands
from optim.kernels.settings import Settings, table
from tests.optim.kernels.cuda.cases import full, room

HOST = torch.device("cpu")


def of_sizes(*sizes: int, memory: Memory | None = None) -> Operands:
    return Operands(grads=[torch.empty(size) for size in sizes], memory=memory or Memory())


def test_every_element_belongs_to_one_chunk_of_its_tensor() -> None:
    layout = tables.layout(of_sizes(10, 0, 3, 4, 9), 4)
    numel, first, owners = layout.table.tensor_split([5, 10])
    assert numel.tolist() == [10, 0, 3, 4, 9]
    assert owners.tolist() == [0, 0, 0, 1, 2, 3, 4, 4, 4]
    assert [owners.tolist().index(t) for t in range(5)] == first.tolist()
    assert layout.chunks == 9


def test_tensors_without_elements_have_a_chunk_in_which_they_are_finished() -> None:
    layout = tables.layout(of_sizes(0, 0), 4)
    assert layout.chunks == 2
    assert layout.table.tolist() == [0, 0, 0, 1, 0, 1]


def test_one_tensor_that_is_not_aligned_is_enough_to_read_number_by_number() -> None:
    aligned, off, step_off = full(), full(), full()
    off.copies[1] = room(2)[1:]
    step_off.steps[1] = room(2)[1:]
    assert tables.addresses(aligned).aligned
    assert not tables.addresses(off).aligned
    assert tables.addresses(step_off).aligned
    aligned.grads[0] = room(5)[1:]
    assert not tables.gradients(aligned).aligned


def test_powers_of_beta_follow_from_the_logarithms_of_the_settings() -> None:
    operands = of_sizes(1, 1, 1)
    operands.settings = table([Settings(beta1=0.8, beta2=0.95), Settings(beta1=0.0), Settings(bias_correction=0.0)])
    made = tables.settings(operands, HOST)
    assert made.shape == (3, places.COLUMNS.value)
    assert made[:, : operands.settings.shape[1]].equal(operands.settings)
    powers = (3 * made[:, [places.LOG_BETA1.value, places.LOG_BETA2.value]]).exp()
    expected = torch.tensor([[0.8**3, 0.95**3], [0.0, 0.999**3], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(powers, expected, rtol=1e-15, atol=0)


def made_from(operands: Operands) -> list[Tensor]:
    return [
        tables.layout(operands, 4).table,
        tables.gradients(operands).table,
        tables.addresses(operands).table,
        tables.settings(operands, HOST),
        tables.maps(operands),
    ]


def test_the_same_tensors_find_the_tables_of_the_last_step() -> None:
    first = full()
    second = replace(first)
    assert [id(table) for table in made_from(first)] == [id(table) for table in made_from(second)]
    assert [id(table) for table in made_from(first)] != [id(table) for table in made_from(full())]


def test_what_has_changed_gets_a_table_of_its_own_and_the_rest_stays() -> None:
    first = full()
    before = made_from(first)
    other = replace(first, settings=table([Settings(eps=1.0)] * 2), grads=[room(4), room(1)])
    assert [a is b for a, b in zip(before, made_from(other), strict=True)] == [True, False, True, False, True]
    other = replace(first, weights=[room(4), room(9)])
    assert [a is b for a, b in zip(before, made_from(other), strict=True)][::2] == [False, False, True]


def test_tables_are_made_on_the_host_whatever_the_default_device() -> None:
    operands = full()
    with torch.device("meta"):
        made = made_from(operands)
    assert {table.device for table in made} == {HOST}


def test_settings_of_equal_numbers_are_told_apart_by_the_tensor_they_stand_in() -> None:
    operands = of_sizes(1)
    made = []
    for i in range(5):
        operands.settings = torch.full((1, 11), float(i), dtype=torch.float64)
        made.append(tables.settings(operands, HOST)[0, 0].item())
    assert made == [0, 1, 2, 3, 4]


def test_tables_go_with_the_memory_they_are_kept_in() -> None:
    operands = full()
    gone = [weakref.ref(table) for table in made_from(operands)]
    del operands
    gc.collect()
    assert [reference() for reference in gone] == [None] * 5


def test_a_copy_of_a_memory_begins_empty() -> None:
    made_from(full(memory := Memory()))
    for other in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):  # noqa: S301
        assert memory.holds("maps", (HOST, None))
        assert not other.holds("maps", (HOST, None))
