import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.samples.draws import Purpose, below, draw

INT64 = st.integers(-(2**63), 2**63 - 1)


def mix(x: int) -> int:
    """SplitMix64, on Python's integers."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return x ^ (x >> 31)


def test_the_mixer_is_splitmix64() -> None:
    assert mix(0) == 0xE220A8397B1DCDAF  # the first number of the published generator for seed 0


@given(seed=st.integers(), purpose=st.sampled_from(Purpose), index=INT64, slot=st.integers(0, 2**31))
def test_a_draw_is_its_definition_for_any_seed_and_index(seed: int, purpose: Purpose, index: int, slot: int) -> None:
    key = mix((mix(seed % 2**64) + purpose) % 2**64)
    expected = mix((mix(key ^ (index % 2**64)) + slot) % 2**64)
    assert int(draw(seed, purpose, np.array([index]), slot)[0]) == expected


def test_a_draw_does_not_depend_on_what_is_drawn_beside_it() -> None:
    index, slot = np.arange(50)[:, None], np.arange(20)
    table = draw(3, Purpose.MASK, index, slot)
    assert table.shape == (50, 20)
    assert table[17, 4] == draw(3, Purpose.MASK, np.array([17]), 4)[0]


def test_every_bit_is_set_half_of_the_time_and_streams_do_not_agree() -> None:
    index, slot = np.arange(200)[:, None], np.arange(200)
    tables = [draw(seed, purpose, index, slot) for seed in (0, 1) for purpose in Purpose]
    tables.append(draw(0, Purpose.MASK, index + 1, slot))
    within = 5 * 0.5 / np.sqrt(index.size * slot.size)
    zero = np.zeros_like(tables[0])
    for first, second in [(a, b) for i, a in enumerate(tables) for b in [zero, *tables[:i]]]:
        bits = np.unpackbits((first ^ second).view(np.uint8).reshape(-1, 8), axis=1)
        assert np.abs(bits.mean(axis=0) - 0.5).max() < within


@pytest.mark.parametrize("bound", [1, 3, 1000])
def test_bounded_numbers_take_each_value_equally_often(bound: int) -> None:
    numbers = below(draw(0, Purpose.OTHER, np.arange(100_000)), bound)
    counts = np.bincount(numbers, minlength=bound)
    assert len(counts) == bound
    assert np.abs(counts - 100_000 / bound).max() <= 5 * np.sqrt(100_000 / bound)
