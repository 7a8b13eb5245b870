"""What a step costs the host: CPU time of tensors of one element each, for Lamb and for PyTorch's fused AdamW.

    python benchmarks/host.py --tensors 398 --steps 60

All take their steps in turns, on one thread. The gradients of one step are those of the step before last, so they lie
elsewhere in each step, except in the first row. On a GPU (`--device cuda`) the time includes the launches, and not what
they launch.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.optim import Optimizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a program run by its path looks no further than there

from benchmarks.tables import aligned
from optim import Lamb

_ADAMW = partial(torch.optim.AdamW, fused=True)

WARM_UP = 3
"""Steps that are not counted."""


class Case(NamedTuple):
    """What both optimizers are given, and how Lamb is set."""

    name: str
    groups: int = 1
    dtype: torch.dtype = torch.float32
    changes: bool = True
    """Whether each step has other gradients and another learning rate."""
    is_sharded: bool = False
    lamb: tuple[tuple[str, Any], ...] = ()
    """Settings of Lamb."""


CASES = (
    Case("the same gradients and rate", changes=False),
    Case("other gradients and another rate in each step"),
    Case("the same in 8 groups", groups=8),
    Case("the same in bfloat16, Lamb with masters", dtype=torch.bfloat16, lamb=(("master_weights", True),)),
    Case("the same, Lamb with 8-bit moments", lamb=(("moments", "8bit"),)),
    Case("the same, sharded by DTensor over one rank", is_sharded=True),
)


class Contender:
    """An optimizer, its tensors and the CPU time of its steps."""

    def __init__(self, case: Case, make: Callable[..., Optimizer], tensors: int, device: str, mesh: DeviceMesh) -> None:
        self.seconds: list[float] = []
        self._case = case
        one = torch.ones(1, dtype=case.dtype, device=device)
        weights, *self._gradients = [[self._placed(one.clone(), mesh) for _ in range(tensors)] for _ in range(3)]
        self._parameters = [nn.Parameter(weight) for weight in weights]
        groups = [{"params": self._parameters[number :: case.groups]} for number in range(case.groups)]
        self._optimizer = make(groups)

    def _placed(self, value: Tensor, mesh: DeviceMesh) -> Tensor:
        return distribute_tensor(value, mesh, [Shard(0)]) if self._case.is_sharded else value

    def step(self, number: int) -> None:
        """Take a step and note its time."""
        turn = number if self._case.changes else 0
        for parameter, gradient in zip(self._parameters, self._gradients[turn % 2], strict=True):
            parameter.grad = gradient
        for group in self._optimizer.param_groups:
            group["lr"] = 1e-3 / (1 + turn)
        begin = time.thread_time()
        self._optimizer.step()
        self.seconds.append(time.thread_time() - begin)


def measure(tensors: int, steps: int, device: str = "cpu", cases: Sequence[Case] = CASES) -> list[list[str]]:
    """Return a row for each case: least and median of Lamb and of AdamW in milliseconds, and their ratios."""
    dist.init_process_group("gloo" if device == "cpu" else "nccl", store=HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh(device, (1,))
        pairs = [
            [Contender(case, make, tensors, device, mesh) for make in (partial(Lamb, **dict(case.lamb)), _ADAMW)]
            for case in cases
        ]
        gc.disable()
        for number in range(WARM_UP + steps):
            for pair in pairs:
                for contender in pair:
                    contender.step(number)
    finally:
        gc.enable()
        dist.destroy_process_group()
    return [row(case, *(each.seconds[WARM_UP:] for each in pair)) for case, pair in zip(cases, pairs, strict=True)]


def row(case: Case, lamb_s: list[float], adamw_s: list[float]) -> list[str]:
    """Return a row of the table."""
    least, middle = [[of(lamb_s), of(adamw_s)] for of in (min, statistics.median)]
    figures = [f"{1e3 * value:.2f}" for value in (*least, *middle)]
    return [case.name, *figures[:2], f"{least[0] / least[1]:.2f}", *figures[2:], f"{middle[0] / middle[1]:.2f}"]


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensors", type=int, default=398, help="as many as BERT-Large has (398)")
    parser.add_argument("--steps", type=int, default=60, help="that are counted (60)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    rows = measure(arguments.tensors, arguments.steps, arguments.device)
    heads = ["", "Lamb, least ms", "AdamW, least ms", "÷", "Lamb, median ms", "AdamW, median ms", "÷"]
    print(aligned(heads, rows))


if __name__ == "__main__":
    main()
