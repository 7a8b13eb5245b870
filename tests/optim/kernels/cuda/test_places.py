"""Kernels read settings and addresses where the host has put them."""

from optim.kernels.cuda import places, tables
from optim.kernels.settings import Settings
from tests.optim.kernels.cuda.cases import full


def test_addresses_stand_in_the_rows_that_the_kernels_read() -> None:
    operands = full()
    expected = {
        "WEIGHTS": operands.weights,
        "EXP_AVGS": operands.exp_avgs,
        "EXP_AVG_SQS": operands.exp_avg_sqs,
        "STEPS": operands.steps,
        "COPIES": operands.copies,
        "FIRST_SCALES": operands.first_scales,
        "SECOND_SCALES": operands.second_scales,
    }
    rows = tables.addresses(operands).table
    assert {name: rows[getattr(places, name).value].tolist() for name in expected} == {
        name: [tensor.data_ptr() for tensor in tensors] for name, tensors in expected.items()
    }
    assert tables.gradients(operands).table.tolist() == [[tensor.data_ptr() for tensor in operands.grads]]
    operands = full()
    operands.copies = []
    assert tables.addresses(operands).table[places.COPIES.value].tolist() == [0, 0]


def test_the_columns_of_settings_are_those_of_the_table() -> None:
    named = {name: getattr(places, name.upper()).value for name in Settings._fields}
    assert list(named.values()) == list(range(len(Settings._fields)))
