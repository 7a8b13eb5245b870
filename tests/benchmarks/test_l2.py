"""The model of a GPU's cache, on tensors small enough to count by hand."""

import pytest

from benchmarks.l2 import Cache, cut, moved_bytes

FIRST_PASSES, SECOND_PASSES = [0, 2, 4, 6], [1, 3, 5, 7]


def test_a_tensor_of_several_chunks_ends_with_a_smaller_one() -> None:
    assert list(cut([10, 8, 3, 0], 4)) == [[4, 4, 2], [4, 4], [3], [0]]


@pytest.mark.parametrize("hints", [True, False])
def test_what_stays_in_the_cache_is_moved_once_as_adamw_moves_it(hints: bool) -> None:
    assert moved_bytes([100] * 4, [*FIRST_PASSES, *SECOND_PASSES], 1 << 20, hints=hints) == 28


def test_what_leaves_the_cache_between_the_passes_is_read_again() -> None:
    assert moved_bytes([100] * 4, [*FIRST_PASSES, *SECOND_PASSES], 1600, hints=False) == 40  # room for a chunk


def test_a_second_pass_that_goes_backwards_finds_what_was_read_last() -> None:
    # Room for the weights and moments of two chunks of four, which need no second reading.
    backwards = [*FIRST_PASSES, *reversed(SECOND_PASSES)]
    assert moved_bytes([100] * 4, backwards, 2 * 1200, hints=True) == 28 + 12 / 2


def test_what_is_used_once_leaves_before_what_is_older() -> None:
    cache = Cache(200)
    cache.use((0, 0), 100)
    cache.use((1, 0), 100, once=True)
    cache.use((2, 0), 100)
    assert cache.read_bytes == 300
    cache.use((0, 0), 100)
    assert cache.read_bytes == 300


def test_what_is_written_goes_to_memory_once_and_need_not_be_read() -> None:
    cache = Cache(100)
    for _ in range(3):
        cache.use((0, 0), 100, writes=True)
    cache.flush()
    assert (cache.read_bytes, cache.written_bytes) == (0, 100)
