"""The one operand type: what a call is told of its tensors, and what is kept for the next one."""

import torch

from optim.kernels.operands import Memory, Operand, Operands
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


def test_an_operand_knows_its_dtypes_and_whether_all_of_it_is_contiguous() -> None:
    plain = operand(6, copy=True)
    assert plain.dtypes == (*[torch.float32] * 5, torch.bfloat16, None, None)
    assert plain.is_contiguous
    assert not plain._replace(exp_avg=torch.zeros(6, 2)[:, 0]).is_contiguous


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
