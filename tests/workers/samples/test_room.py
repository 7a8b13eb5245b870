from pathlib import Path
from typing import Any

import pytest

from workers.samples.dataset import PreTrainingData
from workers.samples.room import room_of

KINDS: dict[str, dict[str, Any]] = {
    "single tokens": {},
    "whole words": {"whole_word": True},
    "packed": {"packing": True},
    "packed whole words": {"packing": True, "whole_word": True, "short_sequences": 0.3},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("rows", [4, 32])
def test_batches_that_did_not_decide_the_room_fit_into_it_and_fill_most_of_it(
    prepared: Path, kind: dict[str, Any], rows: int
) -> None:
    data = PreTrainingData(prepared, seq_len=64, seed=7, **kind)
    room = room_of(data, rows)
    assert room.masked % 8 == 0
    batches = [data.batch(range(first, first + rows)) for first in range(50_000, 50_000 + 64 * rows, rows)]
    masked = [len(batch.masked_positions) for batch in batches]
    assert max(masked) <= room.masked
    assert sum(masked) / len(masked) > (0.8 if rows == 32 else 0.6) * room.masked
    packed = [batch.packed for batch in batches if batch.packed]
    assert all(len(each.starts) <= room.samples and len(each.boundaries) <= room.boundaries for each in packed)


def test_rows_that_all_hold_as_much_need_no_more_than_that(prepared: Path) -> None:
    data = PreTrainingData(prepared, seq_len=64, seed=7, packing=True)
    most = max(len(data.batch([row]).masked_positions) for row in range(200))
    assert room_of(data, 16).masked <= most * 16 + 8


def test_the_room_is_the_same_wherever_it_is_asked_for(prepared: Path) -> None:
    first, again = (PreTrainingData(prepared, seq_len=64, seed=7, whole_word=True) for _ in range(2))
    first.batch(range(100))
    assert room_of(first, 32) == room_of(again, 32)
