"""Seconds of one optimizer step on BERT's parameters: Lamb beside torch's fused AdamW, in turns, in one run.

    python benchmarks/optimizer.py --model bert-base --threads 1 2

Every contender steps tensors of its own with the shapes of the model, so that nobody finds another's in cache. The
turns alternate, so that a machine whose speed drifts treats all alike; a ratio is that of the medians. A step's bytes
are those that an optimizer without any cache would move, and the machine's bandwidth is that of a large copy.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from optim import Lamb, backend

WARM_UP = 2
"""Steps of each contender that are not counted."""

MODELS = {"bert-tiny": (2, 128), "bert-base": (12, 768), "bert-large": (24, 1024)}
"""Layers and hidden size; the vocabulary has 30,522 words."""


@dataclass(frozen=True)
class Contender:
    """An optimizer, and the bytes it reads and writes for each float32 parameter if nothing stays in cache."""

    make: Callable[[list[nn.Parameter]], Optimizer]
    bytes: int


BASELINE = "torch AdamW fused"
CONTENDERS = {
    BASELINE: Contender(lambda p: AdamW(p, lr=1e-4, fused=True), 28),
    # Both passes from memory, and the gradients once more where something asks for their norm.
    "Lamb": Contender(lambda p: Lamb(p, lr=1e-4), 44),
    "Lamb, no gradient norm": Contender(lambda p: Lamb(p, lr=1e-4, skip_nonfinite=False), 40),
    "Lamb eager": Contender(lambda p: Lamb(p, lr=1e-4, backend="eager"), 44),
}


@dataclass(frozen=True)
class Result:
    """What one contender took with one number of threads."""

    name: str
    threads: int
    seconds: float  # median of a step
    fastest: float
    slowest: float
    over_baseline: float  # ratio of the medians
    bytes_per_parameter: int
    of_copy_bandwidth: float  # the bytes a second that this comes to ÷ those of a copy


def shapes(model: str) -> list[tuple[int, ...]]:
    """Return the parameters of BertForPreTraining with its tied decoder."""
    layers, h = MODELS[model]
    norm = [(h,), (h,)]
    layer = [*[(h, h), (h,)] * 4, *norm, (4 * h, h), (4 * h,), (h, 4 * h), (h,), *norm]
    embeddings, heads = (
        [(30522, h), (512, h), (2, h), *norm],
        [(h, h), (h,), (h, h), (h,), *norm, (30522,), (2, h), (2,)],
    )
    return [*embeddings, *layer * layers, *heads]


def make_parameters(model: str) -> list[nn.Parameter]:
    """Return parameters with gradients, the same for every contender."""
    generator = torch.Generator().manual_seed(0)

    def normal(shape: tuple[int, ...], size: float) -> Tensor:
        return torch.randn(shape, generator=generator).mul_(size)

    parameters = [nn.Parameter(normal(shape, 0.02)) for shape in shapes(model)]
    for parameter in parameters:
        parameter.grad = normal(tuple(parameter.shape), 1e-3)
    return parameters


def copy_bandwidth() -> float:
    """Return bytes a second read and written by a copy that no cache holds, the fastest of five."""
    source, target = torch.ones(1 << 26), torch.ones(1 << 26)
    return 2 * source.nbytes / min(seconds_of(lambda: target.copy_(source)) for _ in range(5))


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call took."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure(model: str, threads: int, turns: int, names: list[str]) -> list[Result]:
    """Return what each contender took."""
    torch.set_num_threads(threads)
    optimizers = {name: CONTENDERS[name].make(make_parameters(model)) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(WARM_UP + turns):
        for name, optimizer in optimizers.items():
            seconds = seconds_of(optimizer.step)
            if turn >= WARM_UP:
                times[name].append(seconds)
    elements = sum(torch.Size(shape).numel() for shape in shapes(model))
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    bandwidth = copy_bandwidth()
    return [
        Result(
            name=name,
            threads=threads,
            seconds=medians[name],
            fastest=min(taken),
            slowest=max(taken),
            over_baseline=medians[name] / medians[BASELINE],
            bytes_per_parameter=CONTENDERS[name].bytes,
            of_copy_bandwidth=CONTENDERS[name].bytes * elements / medians[name] / bandwidth,
        )
        for name, taken in times.items()
    ]


def report(model: str, results: list[Result]) -> None:
    """Print a table."""
    count, elements = len(shapes(model)), sum(torch.Size(shape).numel() for shape in shapes(model))
    print(f"{model}: {count} tensors, {elements:,} parameters, torch {torch.__version__}; medians of steps")
    print(f"kernel for the CPU: {backend('cpu').name}, {backend('cpu').reason}")
    print(f"{'':24} threads        ms (fastest, slowest)   ÷ AdamW   B/param   of copy")
    for r in results:
        spread = f"({r.fastest * 1e3:.2f}, {r.slowest * 1e3:.2f})"
        print(
            f"{r.name:24} {r.threads:7} {r.seconds * 1e3:9.2f} {spread:20} {r.over_baseline:8.2f} "
            f"{r.bytes_per_parameter:9} {r.of_copy_bandwidth:8.0%}"
        )


def main() -> None:
    """Measure, print a table, and with --json one line for machines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="bert-base")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--turns", type=int, default=11, help=f"steps of each contender, beside {WARM_UP} not counted")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, metavar="NAME", help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    names = list(dict.fromkeys([BASELINE, *(arguments.only or CONTENDERS)]))
    results = [r for threads in arguments.threads for r in measure(arguments.model, threads, arguments.turns, names)]
    if arguments.json:
        print(json.dumps({"model": arguments.model, "results": [asdict(result) for result in results]}))
    else:
        report(arguments.model, results)


if __name__ == "__main__":
    main()
