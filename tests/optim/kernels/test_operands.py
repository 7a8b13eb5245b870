"""The one operand type: what a call is told of its tensors, and what is kept for the next one."""

import pytest
import torch
from torch import Tensor

from optim.kernels.operands import Memory, Operand, Operands, is_dense
from optim.kernels.settings import Settings, table


def operand(size: int, *, copy: bool = False) -> Operand:
    w, g, m, v = (torch.full((size,), float(n)) for n in range(4))
    return Operand(w, g, m, v, torch.tensor(2.0), w.bfloat16() if copy else None)


def test_operands_come_back_one_by_one_as_they_were_given() -> None:
    given = [operand(3, copy=True), operand(5, copy=True)]
    operands = Operands.of(given, table([Settings()] * 2))
    assert len(operands) == 2
    assert operands.numels == (3, 5)
    assert [[id(x) for x in each if x is not None] for each in operands.each()] == [
        [id(x) for x in each if x is not None] for each in given
    ]
    assert operands.first_scales == []


def test_addresses_are_those_of_the_tensors_and_0_where_there_are_none() -> None:
    operands = Operands.of([operand(3), operand(5)], table([Settings()] * 2))
    assert operands.grad_addresses == tuple(grad.data_ptr() for grad in operands.grads)
    weights, first, second, steps, copies, *scales = operands.addresses
    for row, tensors in ((weights, operands.weights), (first, operands.exp_avgs), (second, operands.exp_avg_sqs)):
        assert row == tuple(tensor.data_ptr() for tensor in tensors)
    assert steps == tuple(step.data_ptr() for step in operands.steps)
    assert [copies, *scales] == [(0, 0)] * 3


def test_an_operand_knows_its_dtypes_and_whether_all_of_it_lies_flat() -> None:
    plain = operand(6, copy=True)
    assert plain.dtypes == (*[torch.float32] * 5, torch.bfloat16, None, None)
    assert plain.lies_flat
    assert not plain._replace(exp_avg=torch.zeros(6, 2)[:, 0]).lies_flat


DENSE = [
    torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
    torch.zeros(2, 3, 4, 5, 2).to(memory_format=torch.channels_last_3d),
    torch.zeros(5, 3).t(),
    torch.zeros(4, 2, 3).permute(2, 0, 1),
    torch.zeros(4, 1, 3).as_strided((4, 1, 3), (1, 99, 4)),
    torch.zeros(0, 3).t(),
    torch.zeros(()),
]
GAPS = [torch.zeros(4, 6)[:, ::2], torch.zeros(4, 6)[:, 1:], torch.zeros(3, 1).expand(3, 4), torch.zeros(6)[::2]]


@pytest.mark.parametrize("tensor", DENSE, ids=lambda tensor: str(tensor.stride()))
def test_what_fills_its_memory_in_any_order_lies_flat_where_all_of_it_lies_alike(tensor: Tensor) -> None:
    assert is_dense(tensor)
    w, g, m, v = (torch.empty_like(tensor) for _ in range(4))
    alike = Operand(w, g, m, v, torch.tensor(1.0), torch.empty_like(tensor, dtype=torch.bfloat16))
    assert alike.lies_flat
    if not tensor.is_contiguous():
        assert not alike._replace(grad=g.contiguous()).lies_flat
        assert not alike._replace(exp_avg=m.bfloat16(), exp_avg_sq=v.bfloat16()).lies_flat


@pytest.mark.parametrize("tensor", GAPS, ids=lambda tensor: str(tensor.stride()))
def test_what_leaves_gaps_or_shares_places_does_not_lie_flat(tensor: Tensor) -> None:
    assert not is_dense(tensor)
    assert not Operand(tensor, tensor, tensor, tensor, torch.tensor(1.0)).lies_flat


def test_a_memory_makes_a_thing_anew_only_when_its_key_changes() -> None:
    memory = Memory()
    made: list[None] = []

    def make() -> int:
        made.append(None)
        return len(made)

    assert [memory.recall("name", key, make) for key in ("a", "a", "b", "a")] == [1, 1, 2, 3]
    assert memory.recall("other", "a", make) == 4
    assert memory.holds("name", "a")
    assert not memory.holds("name", "b")
    assert not memory.holds("nothing", None)


def test_weights_have_their_addresses_where_the_gradients_are_the_same_list() -> None:
    operands = Operands.of([operand(3)], table([Settings()]))
    operands.grads = operands.weights
    assert operands.addresses[0] == operands.grad_addresses == (operands.weights[0].data_ptr(),)
