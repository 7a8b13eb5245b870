"""Seconds of a step on two ranks, with the norms' all-reduce hidden behind the next tensors' first pass, and without.

    python benchmarks/overlap.py --model bert-base

`Lamb` has one all-reduce for all tensors between its two passes. Here shards are cut into buckets: while the sums of
one are on their way, the next has its first pass, and then the one before its second, perhaps still in cache. Both
ways end with the same bits.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Work
from torch.distributed.device_mesh import init_device_mesh
from torch.multiprocessing.spawn import start_processes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a program run by its path looks no further than there

from benchmarks.bert import MODELS, make_parameters
from benchmarks.timing import in_turns
from optim import Lamb
from optim.kernels.operands import Operands
from optim.sharding import local_part
from optim.step.remembered import Call

RANKS = 2


class Overlapped(Lamb):
    """Lamb whose shards have an all-reduce for each bucket of `bucket` local elements."""

    bucket = 1 << 20

    def _step_sharded(self, calls: list[Call], clip: Tensor) -> list[Tensor]:
        norms, pending = [], None
        for call in calls:
            for part in self._buckets(call):
                started = part, *self._start(part, clip)
                if pending:
                    norms.append(self._finish(*pending, clip))
                pending = started
        return norms + ([self._finish(*pending, clip)] if pending else [])

    def _buckets(self, call: Call) -> Iterator[Call]:
        """Yield a call in parts of so many elements; what a backend has made for all does not hold for a part."""
        ends, elements = [0], 0
        for number, size in enumerate(call.operands.numels, start=1):
            elements += size
            if elements > self.bucket or number == len(call.operands):
                ends.append(number)
                elements = 0
        operands = list(call.operands.each())
        for begin, end in itertools.pairwise(ends):
            part = Operands.of(operands[begin:end], call.operands.settings[begin:end])
            yield call._replace(operands=part, lr=call.lr[begin:end])

    def _start(self, part: Call, clip: Tensor) -> tuple[Tensor, Work]:
        sums = part.kernels.lamb_update(part.operands, clip)
        return sums, dist.all_reduce(sums, group=part.groups[0], async_op=True)

    def _finish(self, part: Call, sums: Tensor, work: Work, clip: Tensor) -> Tensor:
        work.wait()
        norms = part.kernels.lamb_ratio(part.operands, sums, clip, part.lr)
        part.kernels.lamb_apply(part.operands, norms[3])
        return norms


def _rank(rank: int, model: str, turns: int, store: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", world_size=RANKS, rank=rank)
    mesh = init_device_mesh("cpu", (RANKS,))
    plain = Lamb(make_parameters(model, mesh=mesh), lr=1e-4)
    contenders: dict[str, Lamb] = {"one all-reduce": plain}
    for bits in (20, 22):
        overlapped = Overlapped(make_parameters(model, mesh=mesh), lr=1e-4)
        overlapped.bucket = 1 << bits
        contenders[f"buckets of 2^{bits} elements"] = overlapped
    rows = in_turns([optimizer.step for optimizer in contenders.values()], turns, before=dist.barrier)
    seconds = torch.tensor(rows)
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    for optimizer in contenders.values():
        pairs = zip(plain.param_groups[0]["params"], optimizer.param_groups[0]["params"], strict=True)
        if not all(torch.equal(local_part(a), local_part(b)) for a, b in pairs):
            raise RuntimeError("the two ways do not end with the same bits: a bucket was left out or taken twice")
    if rank == 0:
        _report(model, dict(zip(contenders, seconds.tolist(), strict=True)))
    dist.destroy_process_group()


def _report(model: str, seconds: dict[str, list[float]]) -> None:
    base = statistics.median(next(iter(seconds.values())))
    print(f"{model}, {RANKS} ranks of 1 thread, torch {torch.__version__}; medians of the slowest rank")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name:28} {median * 1e3:8.1f} ms ({min(taken) * 1e3:.1f}, {max(taken) * 1e3:.1f})  {median / base:.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="bert-base")
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = (arguments.model, arguments.turns, Path(folder) / "store")
        start_processes(_rank, where, RANKS, start_method="spawn")  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
