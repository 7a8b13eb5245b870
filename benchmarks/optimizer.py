"""Seconds of one optimizer step on BERT's parameters: Lamb and others beside torch's fused AdamW, in turns, in one run.

    python benchmarks/optimizer.py --model bert-tiny bert-base bert-large --threads 1 2 --ranks 1 2

Every contender steps tensors of its own with the shapes of the model, so that nobody finds another's in cache, and
takes turns with the baseline and a large copy; a ratio is the median of those within a turn. Two contenders are in
memory at a time, with several ranks three: for bert-large that is 11 to 17 GB. A step's bytes are those that move if
nothing stays in cache.

The other projects are in the dependency group `bench`, and timm, whose package needs a torchvision that fits torch's
build, comes without what it asks for; its Lamb is loaded from its file:

    pip install --constraint constraints.txt --group bench
    pip install --constraint constraints.txt --no-deps timm
"""

import argparse
import ctypes
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch.multiprocessing.spawn import ProcessExitedException
from torch.optim import Optimizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a program run by its path looks no further than there

from benchmarks.bert import MODELS, count, make_parameters
from benchmarks.contenders import BASELINE, CONTENDERS, missing
from benchmarks.counting import gpu_work, moved_bytes, state_bytes, temporary_bytes
from benchmarks.ranks import measure_sharded
from benchmarks.results import Report, Result, Setting, result, this_machine
from benchmarks.tables import number, tables
from benchmarks.timing import WARM_UP, copy_step, in_turns


class Seconds(NamedTuple):
    """Of each turn."""

    copy: list[float]
    baseline: list[float]
    contender: list[float]


def measure(setting: Setting, names: list[str]) -> Iterator[Result]:
    """Yield what each contender takes on one rank; the baseline, which takes part in all turns, comes last."""
    torch.set_num_threads(setting.threads)
    copy, baseline = copy_step(setting.device), make(setting, BASELINE)
    everyone = Seconds([], [], [])
    for name in (name for name in names if name != BASELINE):
        say(setting, name)
        contender = make(setting, name)
        taken = Seconds(*in_turns([copy, baseline.step, contender.step], setting.turns, setting.device))
        yield row(setting, name, contender, taken)
        everyone = Seconds(everyone.copy + taken.copy, *[everyone.baseline + taken.baseline] * 2)
        del contender  # before the next one is made: a third set of parameters may not fit
    if not everyone.baseline:
        copies, steps = in_turns([copy, baseline.step], setting.turns, setting.device)
        everyone = Seconds(copies, steps, steps)
    yield row(setting, BASELINE, baseline, everyone)


def make(setting: Setting, name: str) -> Optimizer:
    """Return an optimizer with parameters of its own."""
    return CONTENDERS[name].make(make_parameters(setting.model, setting.device))


def row(setting: Setting, name: str, optimizer: Optimizer, taken: Seconds) -> Result:
    """Return the row of an optimizer on one rank; what is counted and not timed takes further steps."""
    elements = count(setting.model)
    on_gpu = gpu_work(optimizer.step) if setting.device == "cuda" else None
    return result(
        setting,
        name,
        taken.contender,
        taken.baseline,
        taken.copy,
        CONTENDERS[name].moved_bytes or moved_bytes(optimizer.step) / elements,
        state_bytes(optimizer) / elements,
        temporary_bytes=temporary_bytes(optimizer.step, setting.device) / elements,
        on_gpu=on_gpu,
    )


def measure_all(settings: list[Setting], names: list[str]) -> Iterator[Result | str]:
    """Yield the rows of all settings, and why where there is none."""
    for setting in settings:
        if setting.ranks == 1:
            yield from measure(setting, names)
            give_back_memory()
            continue
        for name in names:
            if CONTENDERS[name].ranks:
                say(setting, name)
                try:
                    yield measure_sharded(setting, name)
                except ProcessExitedException as death:  # what others took is not lost with it
                    yield (
                        f"{name} is not measured with {setting.model} on {number(setting.ranks, 'rank')}: {death}, "
                        "as where memory runs out; measure it on a machine with more"
                    )


def give_back_memory() -> None:
    """Hand what was freed to the system, for the ranks that follow: glibc keeps a heap of the size it once had."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def say(setting: Setting, name: str) -> None:
    """Tell what is measured now."""
    print(
        f"{setting.model}, {number(setting.ranks, 'rank')} of {number(setting.threads, 'thread')}: {name}",
        file=sys.stderr,
    )


def choose(arguments: argparse.Namespace) -> tuple[list[Setting], list[str], list[str]]:
    """Return what to measure on, whom, and what of it cannot be measured here."""
    asked = [name for name in CONTENDERS if name in (BASELINE, *(arguments.only or CONTENDERS))]
    asked = [name for name in asked if getattr(CONTENDERS[name], arguments.device)]
    lacking = {name: reason for name in asked if (reason := missing(name, CONTENDERS[name]))}
    cores = len(os.sched_getaffinity(0))
    settings, left_out = [], list(lacking.values())
    if max(arguments.ranks) > 1:
        reasons = {name: CONTENDERS[name].refusal for name in asked if name not in lacking}
        left_out += [f"{name} is not measured on several ranks: {reason}" for name, reason in reasons.items() if reason]
    for model, ranks, threads in itertools.product(arguments.model, arguments.ranks, arguments.threads):
        if ranks > 1 and ranks * threads > cores:
            left_out.append(
                f"{model}, {ranks} ranks of {threads} threads: not measured, they would share {cores} cores"
            )
        else:
            settings.append(Setting(model, ranks, threads, arguments.turns, arguments.device))
    return settings, [name for name in asked if name not in lacking], left_out


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Stop with an error where what is asked for cannot be had."""
    if arguments.json and not Path(arguments.json).parent.is_dir():
        parser.error(f"--json {arguments.json}: there is no folder {Path(arguments.json).parent}; make it first")
    if arguments.device != "cuda":
        return
    if not torch.cuda.is_available():
        parser.error(
            f"--device cuda: torch {torch.__version__} finds no GPU; run it where nvidia-smi shows one, with a CUDA "
            "build of torch, or leave the option out"
        )
    if arguments.ranks != [1] or len(arguments.threads) > 1:
        parser.error("--device cuda measures one rank and one number of threads; leave out --ranks and --threads")


def positive(text: str) -> int:
    """Return a number of turns, threads or ranks."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of them; give 1 or more")
    return int(text)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print a table; with --json one object for machines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, nargs="+", default=["bert-base"])
    parser.add_argument("--threads", type=positive, nargs="+", default=[1], help="of each rank")
    parser.add_argument("--ranks", type=positive, nargs="+", default=[1])
    parser.add_argument(
        "--turns", type=positive, default=11, help=f"steps of each contender, beside {WARM_UP} not counted"
    )
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, metavar="NAME", help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write JSON to FILE, or print it")
    arguments = parser.parse_args(argv)
    check(parser, arguments)
    settings, names, left_out = choose(arguments)
    for reason in left_out:
        print(reason, file=sys.stderr)
    report = Report(this_machine(arguments.device, arguments.turns), [], left_out)
    for row in measure_all(settings, names):
        if isinstance(row, str):
            print(row, file=sys.stderr)
            report.left_out.append(row)
        else:
            report.results.append(row)
        if arguments.json and arguments.json != "-":  # at once: what was measured outlives what comes after it
            Path(arguments.json).write_text(json.dumps(asdict(report), indent=1) + "\n")
    print(json.dumps(asdict(report)) if arguments.json == "-" else tables(report))


if __name__ == "__main__":
    main()
