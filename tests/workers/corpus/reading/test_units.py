from itertools import pairwise

import pytest

from workers.contract.text_files import TextFile
from workers.corpus.reading.units import cut


@pytest.mark.parametrize(
    ("sizes_bytes", "least", "most"),
    [([60_000_000], 110, 120), ([2**33], 2048, 2048), ([10] * 3, 3, 3), ([2**33, 2**19], 2049, 2049)],
)
def test_a_text_is_cut_into_enough_units_to_keep_all_processes_at_work(
    sizes_bytes: list[int], least: int, most: int
) -> None:
    files = [TextFile(f"/{number}.txt") for number in range(len(sizes_bytes))]
    units = cut(files, sizes_bytes)
    assert least <= len(units) <= most
    assert sum(unit.size_bytes for unit in units) == sum(sizes_bytes)
    for before, after in pairwise(units):
        assert (after.file, after.begin) == (before.file, before.end) or (before.is_last and after.begin == 0)
