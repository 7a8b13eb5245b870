"""`python -m workers.corpus FILE`: prepares the text of a job file. `bigbatch data prepare` becomes this program."""

import argparse
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from workers.contract.arguments import home
from workers.contract.documents import parse_spec, read_file
from workers.contract.manifests import VALIDATION, ShardsManifest, identity
from workers.contract.problems import SpecError, counted
from workers.contract.sources import CorpusError, check_files, find
from workers.contract.spec.job import JobSpec

from . import prepare as preparing
from .rows.index import Layout, open_index, verify
from .shards import Shards
from .work.pool import Spread, if_large, in_processes, on_all_processors

_LINE_EVERY_S = 10.0
_EXAMPLE = "Example: bigbatch data prepare configs/demo.yaml"
_INTERRUPTED = 130  # what a shell gives a program that Ctrl-C has ended


@dataclass(frozen=True, slots=True)
class Arguments:
    """What is to be prepared, and how."""

    spec: JobSpec
    within: Path
    spread: Spread
    verify: bool
    as_json: bool


def main(command_line: Sequence[str] | None = None) -> int:
    """Prepare the text that the command line names; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a character of a name
            stream.reconfigure(errors="backslashreplace")
    try:
        _prepare(_read(command_line))
    except (SpecError, CorpusError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        return _INTERRUPTED
    return 0


def _read(command_line: Sequence[str] | None) -> Arguments:
    given = _parser().parse_args(command_line)
    spec = parse_spec(read_file(given.file))
    check_files(spec.data)
    spread: Spread = partial(in_processes, given.processes) if given.processes else if_large(on_all_processors)
    if given.ray is not None:
        spread = _connect(given.ray)
    return Arguments(spec, (given.home or home()).expanduser().absolute() / "data", spread, given.verify, given.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bigbatch data prepare",
        description="Turn the text of a job into a vocabulary, token shards and the rows of its phases, once for all "
        "jobs with the same text. An interrupted preparation goes on where it stopped.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("file", type=Path, help="a job file, e.g. configs/demo.yaml")
    parser.add_argument("--home", type=Path, help="prepare in HOME/data (default: $BIGBATCH_HOME or ~/.bigbatch)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--processes", type=_at_least_1, help="how many at once (default: one for each processor)")
    where.add_argument("--ray", metavar="ADDRESS", help="spread the work over a Ray cluster; auto finds one here")
    parser.add_argument("--verify", action="store_true", help="compare every byte of the result with its sha256")
    parser.add_argument("--json", action="store_true", help="print what was prepared as JSON")
    return parser


def _at_least_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes; give 1 or more")
    return int(text)


def _connect(address: str) -> Spread:
    from .work.cluster import connect, on_cluster

    connect(address)
    return on_cluster


def _prepare(arguments: Arguments) -> None:
    begun_s = time.monotonic()
    console = Console(stderr=True, soft_wrap=True)
    data = arguments.spec.data
    with _shown(console) as progress:
        folder = preparing.prepare(data, arguments.within, progress, spread=arguments.spread)
        shards = Shards(folder)
        layouts = [Layout(phase.seq_len, data.next_sentence, data.packing) for phase in arguments.spec.phases]
        for layout in layouts:
            open_index(shards, layout, progress)
    held_out = Shards(folder / VALIDATION) if shards.manifest.validation else None
    if arguments.verify:
        shards.verify()
        for layout in layouts:
            verify(shards, layout)
    left_out = find(data.corpus).left_out
    if arguments.as_json:
        document = {
            "folder": str(folder),
            "identity": identity(folder),
            "seconds": round(time.monotonic() - begun_s, 3),
            "left_out": left_out,
            "verified": arguments.verify,
            "manifest": json.loads(shards.manifest.document()),
        }
        sys.stdout.write(json.dumps(document) + "\n")
        return
    for name in left_out:
        sys.stdout.write(f"left out     {name}\n")
    for line in _summary(folder, shards.manifest, held_out.manifest if held_out else None, verified=arguments.verify):
        sys.stdout.write(f"{line}\n")


def _summary(
    folder: Path, manifest: ShardsManifest, held_out: ShardsManifest | None, *, verified: bool
) -> Iterator[str]:
    yield f"text         {counted(len(manifest.text), 'file')}, {_contents(manifest)}"
    if held_out:
        yield f"validation   {_contents(held_out)}"
    case = "lower case" if manifest.settings.lowercase else "cased"
    unknown = f"{manifest.unknown / manifest.tokens:.2%} [UNK]"
    yield f"vocabulary   {counted(manifest.vocab_size, 'token')}, {case}; {unknown}"
    if verified:
        yield f"verified     every byte of {counted(len(manifest.files), 'file')}"
    yield f"folder       {folder}"


def _contents(manifest: ShardsManifest) -> str:
    numbers = ((manifest.documents, "document"), (manifest.sentences, "sentence"), (manifest.tokens, "token"))
    return ", ".join(counted(number, noun) for number, noun in numbers)


@contextmanager
def _shown(console: Console) -> Iterator[preparing.Progress]:
    """Show progress as a bar for each stage, or as lines where there is no terminal."""
    if not console.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        tasks = {}

        def progress(what: str, done: float) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=1.0)
            bar.update(tasks[what], completed=done)

        yield progress


def _lines() -> preparing.Progress:
    said_what, said_s = "", 0.0

    def progress(what: str, done: float) -> None:
        nonlocal said_what, said_s
        if what != said_what or time.monotonic() - said_s >= _LINE_EVERY_S:
            sys.stderr.write(f"{what}\n" if what != said_what else f"{what}, {done:.0%} done\n")
            said_what, said_s = what, time.monotonic()

    return progress


if __name__ == "__main__":
    sys.exit(main())
