"""Tokens a second of two workers over those of one, one thread each, and what bounds the ratio.

    python benchmarks/two_workers.py --turns 5

Three ways take turns in one run: one worker; two workers that share a job; and two workers with a job each, which
exchange nothing. The last is the control. What it lacks of twice one worker is lost to what two processes share on this
machine (memory, cache, clock). What two workers lack of the control is their exchange. It is also timed by itself: the
gradients and the weights of a step go to and fro while nobody computes.

Steps alone are measured, without evaluation and checkpoints. Each job has the same global batch.

With `--trace` a step of two workers is profiled, and the share of its collectives beside which the rank computed is
printed. Gloo computes beside them at ZeRO 0 alone: FSDP2 waits for each on a CPU, and overlaps streams on a GPU. The
file can be opened in https://ui.perfetto.dev.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a program run by its path looks no further than there

from benchmarks.intervals import Interval, common_s, total_s
from workers.contract.documents import parse_spec
from workers.contract.manifests import read_shards
from workers.contract.spec.job import JobSpec
from workers.corpus.prepare import prepare
from workers.samples.dataset import PreTrainingData
from workers.samples.room import room_of
from workers.training.feeding import draw_share, split
from workers.training.step import set_up, take_step

SPAWN = multiprocessing.get_context("spawn")
ONE, TWO, APART = "1 worker", "2 workers", "2 that exchange nothing"
WARM_UP = 2
"""Steps that are not counted."""


class Place(NamedTuple):
    """One process: a worker of a job."""

    rank: int
    size: int
    store: Path


class Told(NamedTuple):
    """What a process says of a turn."""

    tokens_per_s: float
    exchange_s: float


def job(arguments: argparse.Namespace, workers: int) -> JobSpec:
    """Return the job that is measured."""
    phase = {"seq_len": arguments.seq_len, "global_batch_size": arguments.batch, "steps": 10, "lr": 1e-3}
    document: dict[str, Any] = {
        "name": "two-workers",
        "model": {"preset": arguments.model},
        "data": {"corpus": ["builtin:austen"], "vocab": arguments.vocab},
        "phases": [phase | {"micro_batch_size": arguments.micro_batch}],
        "parallel": {"workers": workers, "zero_stage": arguments.stage},
    }
    return parse_spec(document)


def main() -> None:
    """Measure, print, and with --json write one line for machines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bert-mini")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--batch", type=int, default=256, help="rows of a step, over all workers of a job")
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--stage", default="auto", type=lambda text: text if text == "auto" else int(text))
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--trace", type=Path, help="a file for the profile of one step of two workers")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = prepare(job(arguments, 1).data, Path(folder) / "data")
        places = [Place(0, 1, Path(folder) / "one"), Place(0, 1, Path(folder) / "other")]
        places += [Place(rank, 2, Path(folder) / "two") for rank in range(2)]
        ours, theirs = zip(*(SPAWN.Pipe() for _ in places), strict=True)
        processes = [
            SPAWN.Process(target=_serve, args=(place, arguments, corpus, connection), daemon=True)
            for place, connection in zip(places, theirs, strict=True)
        ]
        for process in processes:
            process.start()
        for connection in theirs:
            connection.close()
        _measure(arguments, ours)
        for process in processes:
            process.join()


def _measure(arguments: argparse.Namespace, processes: Sequence[Connection]) -> None:
    for process in processes:
        process.recv()  # it is ready
    ways = {ONE: processes[:1], TWO: processes[2:], APART: processes[:2]}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    exchanges = []
    for _ in range(arguments.turns):
        for way, taking_part in ways.items():
            told = _ask(taking_part, "steps")
            rates[way].append(sum(each.tokens_per_s for each in told))
            if way == TWO:
                exchanges.append(max(each.exchange_s for each in told))
    if arguments.trace:
        _ask(processes[2:], "trace")
    _ask(processes, "end")
    _report(arguments, rates, exchanges)


def _ask(processes: Sequence[Connection], question: str) -> list[Told]:
    for process in processes:
        process.send(question)
    return [process.recv() for process in processes]


def _serve(place: Place, arguments: argparse.Namespace, corpus: Path, asked: Connection) -> None:
    dist.init_process_group("gloo", f"file://{place.store}", world_size=place.size, rank=place.rank)
    spec = job(arguments, place.size)
    worker = set_up(spec, read_shards(corpus))
    phase, data = spec.phases[0], PreTrainingData(corpus, seq_len=arguments.seq_len, seed=spec.seed)
    rows = split(phase, 0, place.rank, place.size)
    share = draw_share(data, rows, worker.device, room_of(data, phase.micro_batch_size))
    tokens = sum(micro_batch.batch.n_tokens for micro_batch in share.micro_batches)

    def steps(count: int) -> float:
        dist.barrier()
        begin = time.perf_counter()
        for step in range(1, count + 1):
            take_step(worker, step, 1e-3, share)
        dist.barrier()
        worker.clock.take()
        return time.perf_counter() - begin

    steps(WARM_UP)
    parameters = sum(parameter.numel() for parameter in worker.module.parameters())
    asked.send("ready")
    while (question := asked.recv()) != "end":
        if question == "trace":
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                steps(1)
            if place.rank == 0:
                profiled.export_chrome_trace(str(arguments.trace))
            asked.send(Told(0.0, 0.0))
            continue
        rate = tokens * arguments.steps / steps(arguments.steps)
        asked.send(Told(rate, _exchange_s(parameters) if place.size > 1 else 0.0))
    asked.send(Told(0.0, 0.0))
    dist.destroy_process_group()


def _exchange_s(parameters: int) -> float:
    """Return the seconds in which the gradients are scattered and the weights gathered, once and by themselves."""
    shard = torch.ones(-(-parameters // dist.get_world_size()))
    whole = shard.repeat(dist.get_world_size())
    dist.barrier()
    begin = time.perf_counter()
    dist.reduce_scatter_single(shard, whole)
    dist.all_gather_single(whole, shard)
    return time.perf_counter() - begin


def _report(arguments: argparse.Namespace, rates: dict[str, list[float]], exchanges: list[float]) -> None:
    medians = {way: statistics.median(values) for way, values in rates.items()}
    ratios = {way: statistics.median(map(_divide, values, rates[ONE])) for way, values in rates.items()}
    exchange_s = statistics.median(exchanges)
    if arguments.json:
        told = {"tokens_per_s": medians, "over_1_worker": ratios, "exchange_s": exchange_s}
        print(json.dumps({"model": arguments.model, "stage": arguments.stage, "batch": arguments.batch} | told))
    else:
        accumulation = arguments.batch // arguments.micro_batch
        print(
            f"{arguments.model}, {arguments.batch} rows of {arguments.seq_len} tokens in {accumulation} micro-batches,"
        )
        print(
            f"ZeRO {arguments.stage}, 1 thread a worker, torch {torch.__version__}; medians of {arguments.turns} turns"
        )
        for way, values in rates.items():
            spread = f"{min(values):,.0f} to {max(values):,.0f}"
            print(f"{way:24} {medians[way]:9,.0f} tokens/s ({spread})  x{ratios[way]:.2f}")
        print(f"a step's exchange by itself: {exchange_s * 1e3:,.0f} ms")
    if arguments.trace:
        collectives_s, hidden_s = overlap(arguments.trace)
        print(f"collectives of a step: {collectives_s * 1e3:,.0f} ms, {hidden_s / collectives_s:.0%} beside computing")


def _divide(dividend: float, divisor: float) -> float:
    return dividend / divisor


def overlap(trace: Path) -> tuple[float, float]:
    """Return the seconds of a trace's collectives, and those of them in which the rank computed meanwhile."""
    events = json.loads(trace.read_text())["traceEvents"]
    spans = [(each["name"], each["ts"] / 1e6, each["dur"] / 1e6) for each in events if each.get("ph") == "X"]
    collectives = [Interval(at, at + lasts) for name, at, lasts in spans if name.startswith("gloo:")]
    computing = [Interval(at, at + lasts) for name, at, lasts in spans if name.startswith("aten::")]
    return total_s(collectives), common_s(collectives, computing)


if __name__ == "__main__":
    main()
