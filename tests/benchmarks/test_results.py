import pytest

from benchmarks.results import Setting, result
from benchmarks.timing import COPY_BYTES


def test_ratios_are_taken_within_a_turn() -> None:
    # The machine becomes slower from turn to turn; the medians of both alone are at 4 to 1.
    row = result(Setting("bert-tiny", 1, 1, 3), "Lamb", [2.0, 20.0, 200.0], [1.0, 5.0, 100.0], [1.0] * 3, 44, 8)
    assert row.over_adamw == 2
    assert (row.step_s, row.fastest_s, row.slowest_s) == (20, 2, 200)
    assert row.over_half is None


def test_two_ranks_are_held_against_half_of_one_ranks_step() -> None:
    row = result(Setting("bert-tiny", 2, 1, 1), "Lamb", [3.0], [2.0], [1.0], 44, 8, whole=[4.0])
    assert row.over_half == 1.5


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_part_of_the_copys_bandwidth_is_bytes_a_second_over_bytes_a_second(ranks: int) -> None:
    row = result(Setting("bert-tiny", ranks, 1, 1), "Lamb", [1.0], [1.0], [0.25], 11, 8)
    assert row.copy_bytes_s == ranks * COPY_BYTES / 0.25
    assert row.of_copy == pytest.approx(11 * 4_433_468 / (ranks * COPY_BYTES / 0.25))
