"""How what a worker sends in a step grows with the number of workers: counted for one rank among up to 1,024.

    python benchmarks/communication.py --json docs/plan.json

One process is rank 0 of torch's fake process group, whose collectives return at once, and the model is made of fake
tensors, which have shapes and no memory. So the step is the one that a worker takes, and each collective is counted
where torch dispatches it, with its bytes. Stage 0 is not counted: DDP refuses the fake group.

The counts by which the losses are divided, 16 bytes a step, are added up before the step and are not counted here.

The result is compared with what `bigbatch plan` says. With --json it is also written to a file, with a table in
the .md and a picture in the .svg beside it.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a program run by its path looks no further than there

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from benchmarks.exchanges import Collective, collectives
from benchmarks.report import insert
from benchmarks.steps import first_phase_step
from benchmarks.tables import aligned
from workers.contract.documents import parse_spec
from workers.contract.spec.job import JobSpec
from workers.model import sharding
from workers.model.bert import build
from workers.planning.attempt import Attempt
from workers.planning.traffic import COUNTS, Exchange, traffic
from workers.training.optimizer import build_optimizer
from workers.training.reporting.clock import StepClock
from workers.training.step import Worker
from workers.training.uploads import Uploads

VOCABULARY = 30_522
NODE = 8
"""Workers that hold one copy of the model together, where there are copies."""
MICRO_BATCHES = 2
BEGIN, END = "<!-- counted: written by benchmarks/communication.py -->", "<!-- /counted -->"


@dataclass(frozen=True)
class Row:
    """One number of workers in one way of sharding; bytes are of one worker in a step."""

    way: str
    workers: int
    calls: int
    payload_bytes: int
    sent_bytes: float
    planned_bytes: float
    """What the plan says of `sent_bytes`."""


def ways(workers: int) -> dict[str, dict[str, int]]:
    """Return the ways to shard over so many workers."""
    stages = {f"stage {stage}": {"zero_stage": stage} for stage in (1, 2, 3)}
    copies = {f"stage 1, copies of {NODE} workers": {"zero_stage": 1, "replicate": workers // NODE}}
    return stages | (copies if workers > NODE else {})


def make_spec(preset: str, workers: int, parallel: dict[str, int]) -> JobSpec:
    """Return a job whose workers take two micro-batches of one row in a step."""
    phase: dict[str, Any] = {
        "seq_len": 16,
        "global_batch_size": MICRO_BATCHES * workers,
        "micro_batch_size": 1,
        "steps": 1,
        "lr": 1e-3,
    }
    data = {"corpus": ["builtin:austen"], "vocab": VOCABULARY}
    document = {"name": "communication", "model": {"preset": preset}, "data": data, "phases": [phase]}
    return parse_spec(document | {"parallel": parallel | {"workers": workers}})


def count(spec: JobSpec) -> list[Collective]:
    """Return the collectives of a step of rank 0."""
    cpu, stage = torch.device("cpu"), spec.parallel.zero_stage
    if not isinstance(stage, int):
        raise TypeError("the stage is left open")
    with one_of(spec.parallel.range.max):
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with fake:
            module = build(spec.model, VOCABULARY, 0, pad_id=0)
        # Outside of the mode: a mesh reads the numbers of its ranks. What it makes of fake tensors is fake.
        model = sharding.parallelize(module, spec, cpu, stage)
        optimizer, clock = build_optimizer(spec, module), StepClock(cpu, stage)
        worker = Worker(spec, cpu, module, model, optimizer, stage, Uploads(cpu), clock)
        with fake:
            return collectives(first_phase_step(worker, VOCABULARY))


@contextmanager
def one_of(workers: int) -> Iterator[None]:
    """Be rank 0 of so many that are not there."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=workers)
    try:
        yield
    finally:
        dist.destroy_process_group()


def row(way: str, spec: JobSpec) -> Row:
    """Count one way."""
    workers, stage = spec.parallel.range.max, spec.parallel.zero_stage
    seen = [each for each in count(spec) if each.ranks > 1]
    planned = [
        each for each in traffic(Attempt(spec, VOCABULARY, workers, int(stage)), spec.phases[0]) if each.of != COUNTS
    ]
    return Row(
        way=way,
        workers=workers,
        calls=len(seen),
        payload_bytes=sum(each.payload_bytes for each in seen),
        sent_bytes=sum(
            Exchange.in_a_ring(each.name, "", each.ranks, 1, each.payload_bytes).wire_bytes for each in seen
        ),
        planned_bytes=sum(each.wire_bytes for each in planned),
    )


def section(rows: Sequence[Row], preset: str, picture: str) -> str:
    """Return what stands between the marks of the page."""
    lines = [
        (
            each.way,
            f"{each.workers:,}",
            f"{each.calls:,}",
            f"{each.payload_bytes / 1e9:.3f}",
            f"{each.sent_bytes / 1e9:.3f}",
            f"{each.payload_bytes / _fewest(rows, each.way).payload_bytes:.4f}",
            f"{each.planned_bytes / each.sent_bytes - 1:+.4%}",
        )
        for each in rows
    ]
    titles = ["way", "workers", "calls", "tensors, GB", "sent, GB", "tensors ÷ those of the fewest", "plan"]
    text = f"{preset}, {MICRO_BATCHES} micro-batches, float32; torch {torch.__version__}."
    return f"{BEGIN}\n\n{text}\n\n{aligned(titles, lines)}\n\n![bytes sent by workers]({picture})\n\n{END}"


def _fewest(rows: Sequence[Row], way: str) -> Row:
    return min((each for each in rows if each.way == way), key=lambda each: each.workers)


def main() -> None:
    """Count, print a line for each way, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bert-base-uncased", help="a preset of the specification")
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 32, 128, 512, 1024])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table and the picture beside it")
    arguments = parser.parse_args()
    rows = []
    for workers in arguments.workers:
        for way, parallel in ways(workers).items():
            rows.append(row(way, make_spec(arguments.model, workers, parallel)))
            print(json.dumps(asdict(rows[-1])), flush=True)
    if arguments.json is None:
        return
    from benchmarks.communication_plot import draw

    arguments.json.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n")
    page, picture = arguments.json.with_suffix(".md"), arguments.json.with_suffix(".svg")
    draw([(each.way, each.workers, each.sent_bytes) for each in rows], picture)
    text = page.read_text() if page.exists() else ""
    page.write_text(insert(text, section(rows, arguments.model, picture.name)))


if __name__ == "__main__":
    main()
