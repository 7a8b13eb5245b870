import pytest

from benchmarks.bert import count
from benchmarks.results import Setting, result


def test_ratios_are_taken_within_a_turn() -> None:
    # The machine becomes ten times slower from turn to turn: the medians of both alone would say 1.
    row = result(Setting("bert-tiny", 1, 1, 3), "Lamb", [2.0, 20.0, 200.0], [1.0, 10.0, 100.0], 1.0, 44, 8)
    assert row.over_adamw == 2
    assert (row.step_s, row.fastest_s, row.slowest_s) == (20, 2, 200)
    assert row.over_half is None


def test_two_ranks_are_held_against_half_of_one_ranks_step() -> None:
    row = result(Setting("bert-tiny", 2, 1, 1), "Lamb", [3.0], [2.0], 1.0, 44, 8, whole=[4.0])
    assert row.over_half == 1.5


def test_the_part_of_the_copys_bandwidth_is_bytes_a_second_over_bytes_a_second() -> None:
    bandwidth = 22.0 * count("bert-tiny")  # half a second for 11 bytes a parameter
    row = result(Setting("bert-tiny", 1, 1, 1), "Lamb", [1.0], [1.0], bandwidth, 11, 8)
    assert row.of_copy == pytest.approx(0.5)
