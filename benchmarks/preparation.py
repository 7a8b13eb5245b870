"""How fast text is prepared, beside the tokenizer alone.

    python benchmarks/preparation.py --megabytes 60

Two things are measured in turns, on the same text with the same vocabulary, each in as many processes as there are
processors:

- the tokenizer alone: each process has its share of the sentences in memory and encodes them, a thread each;
- `prepare` into an empty folder: hashing, reading, splitting into sentences, encoding, writing, putting together.

The vocabulary is given, so learning one is no part of it. The goal is at least 80 % of the tokenizer's rate. A machine
that does other things, too, lets the seconds of the clock drift; so the seconds of processor time are compared as well.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a program run by its path looks no further than there

from workers.contract.sources import SPECIAL_TOKENS, resolve
from workers.contract.spec.data import Data
from workers.contract.text_files import TextFile
from workers.corpus import vocabulary
from workers.corpus.prepare import prepare
from workers.corpus.reading.text import Reading, paragraphs
from workers.corpus.reading.units import cut
from workers.corpus.sentences import split_sentences
from workers.corpus.work.pool import in_processes

GOAL = 0.8
SENTENCES_AT_ONCE = 48
"""As many as `prepare` encodes at once, at which the tokenizer is fastest."""
CHUNK_BYTES = 2**20


class Seconds(NamedTuple):
    """What something took."""

    clock: float
    processor: float
    """Of all processes together."""


def write_text(folder: Path, megabytes: int) -> Path:
    """Write the novels that the package has, again and again, as one file."""
    import gzip

    text = gzip.decompress(resolve("builtin:austen")[0].read_bytes())
    path = folder / "text.txt"
    with path.open("wb") as file:
        for part in itertools.repeat(text + b"\n\n", max(1, round(megabytes * 1e6 / len(text)))):
            file.write(part)
    return path


def write_vocabulary(folder: Path, size: int) -> Path:
    """Learn a vocabulary from the novels."""
    tokens = vocabulary.train(lambda: sentences_of(TextFile(str(resolve("builtin:austen-valid")[0])), 0, 1), size)
    assert tokens[: len(SPECIAL_TOKENS)] == list(SPECIAL_TOKENS)  # noqa: S101 -- a program's own check
    path = folder / "vocab.txt"
    path.write_bytes(vocabulary.as_bytes(tokens))
    return path


def sentences_of(file: TextFile, number: int, of: int) -> Iterator[str]:
    """Yield the sentences of one of several equal parts of a text."""
    units = cut([file], [file.state().size_bytes], CHUNK_BYTES)
    for unit in units[number::of]:
        for paragraph in paragraphs(unit, Reading()):
            yield from split_sentences(paragraph or "")


def encode_part(text: Path, vocab: Path, number: int, of: int) -> None:
    """Encode a part of a text when a line comes in; tell when it is in memory, and the seconds. Its own process."""
    sentences = list(sentences_of(TextFile(str(text)), number, of))
    encoder = vocabulary.tokenizer(vocabulary.load(vocab), lowercase=True)
    print("ready", flush=True)
    sys.stdin.readline()
    clock, processor = time.perf_counter(), time.process_time()
    for begin in range(0, len(sentences), SENTENCES_AT_ONCE):
        encoder.encode_batch_fast(sentences[begin : begin + SENTENCES_AT_ONCE], add_special_tokens=False)
    print(json.dumps(Seconds(time.perf_counter() - clock, time.process_time() - processor)))


def tokenizer_alone(text: Path, vocab: Path, processes: int) -> Seconds:
    """Encode a text in several processes at once; the slowest one's clock counts."""
    command = [sys.executable, __file__, "--encode", str(text), str(vocab)]
    started = [
        subprocess.Popen(
            [*command, str(number), str(processes)],
            env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    for process in started:
        assert process.stdout is not None  # noqa: S101 -- a pipe was asked for
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None  # noqa: S101 -- a pipe was asked for
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [Seconds(*json.loads(process.communicate()[0])) for process in started]
    return Seconds(max(each.clock for each in found), sum(each.processor for each in found))


def prepared(text: Path, vocab: Path, processes: int) -> Seconds:
    """Prepare a text in an empty folder."""
    with tempfile.TemporaryDirectory(dir=text.parent) as empty:
        clock, processor = time.perf_counter(), _processor_s()
        prepare(Data(corpus=(str(text),), vocab=str(vocab)), Path(empty), spread=partial(in_processes, processes))
        return Seconds(time.perf_counter() - clock, _processor_s() - processor)


def _processor_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=60, help="size of the text (default: %(default)s)")
    parser.add_argument("--vocab", type=int, default=8192, help="size of the vocabulary (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="default: a processor each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON object a line to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text, vocab = write_text(Path(folder), given.megabytes), write_vocabulary(Path(folder), given.vocab)
        megabytes = text.stat().st_size / 1e6
        print(
            f"{platform.processor() or platform.machine()}, {given.processes} processes, load {os.getloadavg()[0]:.1f}"
        )
        print(f"Python {platform.python_version()}, tokenizers {version('tokenizers')}; {megabytes:.1f} MB of text")
        turns = list[dict[str, Seconds]]()
        for _ in range(given.turns):
            turns.append({})
            for what, measure in (("tokenizer", tokenizer_alone), ("prepare", prepared)):
                seconds = turns[-1][what] = measure(text, vocab, given.processes)
                print(f"{what:10} {seconds.clock:7.1f} s, {seconds.processor:7.1f} s of processor time", flush=True)
    lines = [
        {"what": what, "turn": number, "megabytes": megabytes, "processes": given.processes} | seconds._asdict()
        for number, turn in enumerate(turns)
        for what, seconds in turn.items()
    ]
    if given.json:
        given.json.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for what in ("tokenizer", "prepare"):
        rates = sorted(megabytes / turn[what].clock for turn in turns)
        print(f"{what:10} {statistics.median(rates):6.2f} MB/s, {rates[0]:.2f} to {rates[-1]:.2f}")
    for clock in Seconds._fields:
        shares = sorted(getattr(turn["tokenizer"], clock) / getattr(turn["prepare"], clock) for turn in turns)
        share = statistics.median(shares)
        verdict = f"{GOAL:.0%} {'held' if share >= GOAL else 'missed'}"
        print(f"by {clock:9} {share:.0%} of the tokenizer's rate, {shares[0]:.0%} to {shares[-1]:.0%}; {verdict}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--encode"]:
        encode_part(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
