"""Bytes a parameter between a GPU's memory and its L2 cache in a step of Lamb, counted with a model of the cache.

    python benchmarks/l2.py --model bert-base bert-large --mib 25 50

Three launches pass over all tensors twice. One launch takes its chunks in the order that the kernel is given. The model
keeps what was used last, in pieces of one array of a chunk, except that numbers which nobody asks for again leave
first. It takes chunks one after another, where a GPU has hundreds in work at once, and knows nothing of the two halves
of an H100's 50 MB: 25 stands for a cache that holds everything twice. The gradients' norm, 4 bytes more, is left out.
"""

import argparse
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a program run by its path looks no further than there

from benchmarks.bert import MODELS, count, shapes
from benchmarks.tables import aligned

FLOAT = 4
"""Bytes of a number."""

GRADIENT, *KEPT = range(4)
"""The arrays that a chunk has a piece of: beside the gradient its weights and both moments."""
WEIGHT, FIRST, SECOND = KEPT

Piece = tuple[int, int]
"""Chunk and array."""


class Cache:
    """A cache that writes back, and what it has moved."""

    def __init__(self, size_bytes: int) -> None:
        self.read_bytes = self.written_bytes = 0
        self._room = size_bytes
        # Each piece with its size and whether it was written to; those that leave first, and the others.
        self._held: tuple[OrderedDict[Piece, tuple[int, bool]], ...] = (OrderedDict(), OrderedDict())

    def use(self, piece: Piece, size_bytes: int, *, writes: bool = False, once: bool = False) -> None:
        """Read or write a piece; after one that is used `once` nobody asks for it again."""
        found = self._held[0].pop(piece, None) or self._held[1].pop(piece, None)
        if found is None:
            self._room -= size_bytes
            self.read_bytes += 0 if writes else size_bytes
        self._held[not once][piece] = (size_bytes, writes or (found is not None and found[1]))
        while self._room < 0:
            self._evict()

    def flush(self) -> None:
        """Write back everything."""
        while any(self._held):
            self._evict()

    def _evict(self) -> None:
        _, (size_bytes, is_changed) = (self._held[0] or self._held[1]).popitem(last=False)
        self._room += size_bytes
        self.written_bytes += size_bytes if is_changed else 0


def moved_bytes(sizes: Sequence[int], items: Iterable[int], size_bytes: int, *, hints: bool) -> float:
    """Return what a step moves for each element of chunks of these sizes; items are numbered as the kernel's.

    With `hints` the cache is told what is used once.
    """
    cache = Cache(size_bytes)
    for item in items:
        chunk, is_second = divmod(item, 2)
        size = FLOAT * sizes[chunk]
        if not is_second:
            cache.use((chunk, GRADIENT), size, once=hints)
        for array in KEPT:
            cache.use((chunk, array), size, once=hints and bool(is_second))
        for array in [WEIGHT] if is_second else [FIRST, SECOND]:
            cache.use((chunk, array), size, writes=True, once=hints and bool(is_second))
    cache.flush()
    return (cache.read_bytes + cache.written_bytes) / sum(sizes)


def cut(numels: Iterable[int], chunk: int) -> Iterator[list[int]]:
    """Yield the sizes of each tensor's chunks."""
    for numel in numels:
        whole, rest = divmod(numel, chunk)
        yield [chunk] * whole + ([rest] if rest or not whole else [])


def line(model: str, mib: int, lag: int) -> list[str]:
    """Return a row of the table."""
    from optim.kernels.cuda import launch, tables

    chunks = list(cut([_numel(shape) for shape in shapes(model)], launch.CHUNK_AT_ONCE))
    sizes = [size for each in chunks for size in each]
    three = [2 * chunk + second for second in (0, 1) for chunk in range(len(sizes))]
    one = [item for part in tables.in_order([len(each) for each in chunks], lag) for item in part]
    figures = [moved_bytes(sizes, items, mib << 20, hints=items is one) for items in (three, one)]
    return [f"{model}, {count(model):,}", str(mib), *(f"{figure:.1f}" for figure in figures)]


def _numel(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, nargs="+", default=["bert-base", "bert-large"])
    parser.add_argument("--mib", type=int, nargs="+", default=[25, 50])
    parser.add_argument("--lag", type=int, default=528, help="4 on each of an H100's 132 multiprocessors")
    arguments = parser.parse_args()
    titles = ["model, parameters", "cache MiB", "three launches B", "one launch B"]
    lines = [line(model, mib, arguments.lag) for model in arguments.model for mib in arguments.mib]
    print(aligned(titles, lines))


if __name__ == "__main__":
    main()
