"""What it costs to feed a model from billions of tokens: opening them, making batches, and both beside a step.

    python benchmarks/data.py --folder /a/disk/with/14/GB

writes token shards of generated text, 5 billion tokens unless `--tokens` says otherwise, and measures

- the index that is made once for each length of rows, packed and not, by whoever comes first;
- a rank that opens its data: a process of its own, its seconds, and the memory that is its own (anonymous pages, as
  Linux counts them in smaps_rollup; pages of files that are mapped stay with the system);
- rows a second for each kind of rows, of a fresh process that finds the pages it needs in memory or on the disk;
- the share of loading in a step of a model on this machine: seconds to make a micro-batch by the seconds of its
  forward and backward pass, in turns. Training makes the next batch meanwhile, so this is an upper bound.

The shards are removed at the end unless `--keep` is given; a folder that holds them already is used as it is.
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a program run by its path looks no further than there

import numpy as np
import torch
from numpy.typing import NDArray

from workers.contract.manifests import MANIFEST, ShardsSettings
from workers.contract.sources import SPECIAL_TOKENS
from workers.contract.spec.model import Model
from workers.corpus.shards import ShardWriter
from workers.model.bert import build
from workers.samples.dataset import PreTrainingData

VOCABULARY = 30_522
MEAN_TOKENS = 24
"""Of a sentence."""
DOCUMENTS = 2**16
"""So many are generated, and written again and again."""
ROWS = 64
"""Of a batch."""
KINDS: dict[str, dict[str, Any]] = {
    "pairs": {},
    "packed pairs": {"packing": True},
    "packed, whole words": {"packing": True, "whole_word": True, "short_sequences": 0.1},
    "single segments": {"next_sentence": False},
}


def generate(folder: Path, tokens: int) -> None:
    """Write shards of so many tokens, by Zipf's law, in documents of 3 to 40 sentences."""
    random = np.random.default_rng(0)
    pieces = [f"##p{number}" if number % 4 == 0 else f"p{number}" for number in range(VOCABULARY - len(SPECIAL_TOKENS))]
    writer = ShardWriter(folder, [*SPECIAL_TOKENS, *pieces])
    ranks = (VOCABULARY - len(SPECIAL_TOKENS)) ** random.random(2**24) - 1  # density 1/x
    text = (ranks.astype(np.int64) + len(SPECIAL_TOKENS)).astype(np.uint16)
    documents, written = list[tuple[NDArray[np.uint16], NDArray[np.int32]]](), 0
    for count in random.integers(3, 41, DOCUMENTS).tolist():
        lengths = random.integers(4, 2 * MEAN_TOKENS - 4, count, np.int32)
        begin = int(random.integers(0, len(text) - lengths.sum()))
        documents.append((text[begin : begin + lengths.sum()], lengths))
    for document, lengths in itertools.cycle(documents):
        writer.append(document, lengths)
        written += len(document)
        if written >= tokens:
            break
    writer.finish([], ShardsSettings(vocab=VOCABULARY, lowercase=True), ["generated text"])


def own_memory_bytes() -> int:
    """Return the anonymous memory of this process, which no file backs."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024


def open_once(folder: Path, seq_len: int, kind: str, batches: int) -> dict[str, float]:
    """Open the data as a rank does and make batches; everything here is of this process alone."""
    before = own_memory_bytes()
    begin = time.perf_counter()
    data = PreTrainingData(folder, seq_len=seq_len, seed=0, **KINDS[kind])
    opened_s = time.perf_counter() - begin
    opened = own_memory_bytes()
    tokens, begin = 0, time.perf_counter()
    for number in range(batches):
        tokens += data.batch(range(number * ROWS, (number + 1) * ROWS)).n_tokens
    seconds = time.perf_counter() - begin
    return {
        "rows": len(data),
        "open_s": opened_s,
        "programs_bytes": before,
        "open_bytes": opened - before,
        "batches_bytes": own_memory_bytes() - before,
        "all_bytes": own_memory_bytes(),
        "rows_per_s": batches * ROWS / seconds,
        "real_tokens": tokens / (batches * ROWS * seq_len),
    }


def in_a_process(folder: Path, seq_len: int, kind: str, batches: int) -> dict[str, float]:
    """Do the same in a process that has done nothing else."""
    command = [sys.executable, __file__, "--open", str(folder), kind, str(seq_len), str(batches)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def share_of_a_step(folder: Path, preset: str, seq_len: int, rows: int, turns: int) -> dict[str, float]:
    """Time a micro-batch and its forward and backward pass in turns."""
    data = PreTrainingData(folder, seq_len=seq_len, seed=0)
    model = build(Model(preset=preset), data.vocab_size, 0, pad_id=0)
    loading, computing = list[float](), list[float]()
    for turn in range(turns + 1):
        begin = time.perf_counter()
        batch = data.batch(range(turn * rows, (turn + 1) * rows))
        middle = time.perf_counter()
        sums = model(batch)
        (sums.mlm_loss + sums.nsp_loss).backward()
        end = time.perf_counter()
        if turn:
            loading.append(middle - begin)
            computing.append(end - middle)
    loading_s, computing_s = statistics.median(loading), statistics.median(computing)
    return {"loading_s": loading_s, "computing_s": computing_s, "share": loading_s / (loading_s + computing_s)}


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a result for each thing that is measured."""
    if not (folder / MANIFEST).exists():
        begin = time.perf_counter()
        generate(folder, arguments.tokens)
        yield {"what": "generated", "tokens": arguments.tokens, "seconds": time.perf_counter() - begin}
    for seq_len in arguments.seq_len:
        for kind in KINDS:
            first = in_a_process(folder, seq_len, kind, 1)
            yield {"what": "first start", "kind": kind, "seq_len": seq_len} | first
        for turn in range(arguments.turns):
            for kind in KINDS:
                found = in_a_process(folder, seq_len, kind, arguments.batches)
                yield {"what": "start", "kind": kind, "seq_len": seq_len, "turn": turn} | found
    for preset, seq_len, rows in (("bert-tiny", 64, 32), ("bert-base-uncased", 128, 8)):
        torch.set_num_threads(arguments.threads)
        found = share_of_a_step(folder, preset, seq_len, rows, arguments.turns)
        yield {"what": "share", "preset": preset, "seq_len": seq_len, "micro_batch_size": rows} | found


def shown(result: dict[str, Any]) -> str:
    """Return a line for people."""
    if result["what"] == "generated":
        return f"{result['tokens']:,} tokens generated in {result['seconds']:.0f} s"
    if result["what"] == "share":
        return (
            f"{result['preset']}, {result['micro_batch_size']} rows of {result['seq_len']}: a batch is made in "
            f"{result['loading_s'] * 1e3:.2f} ms and computed in {result['computing_s'] * 1e3:.0f} ms: "
            f"loading is {result['share']:.2%}"
        )
    return (
        f"{result['what']:11} {result['seq_len']:4} {result['kind']:20} {result['open_s']:8.2f} s to open "
        f"{result['rows']:>11,} rows, {result['open_bytes'] / 1e6:6.1f} MB; with batches "
        f"{result['batches_bytes'] / 1e6:6.1f} MB, with all programs {result['all_bytes'] / 1e6:6.1f} MB; "
        f"{result['rows_per_s']:8,.0f} rows/s, "
        f"{result['real_tokens']:.1%} real tokens"
    )


def main() -> None:
    """Measure, and print a line or with --json an object for each result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=5_000_000_000)
    parser.add_argument("--folder", type=Path, help="where the shards are written; default: a temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave the shards in the folder")
    parser.add_argument("--seq-len", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--batches", type=int, default=200, help=f"of {ROWS} rows, in each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch, for the step")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--open", nargs=4, metavar=("FOLDER", "KIND", "SEQ_LEN", "BATCHES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        folder, kind, seq_len, batches = arguments.open
        print(json.dumps(open_once(Path(folder), int(seq_len), kind, int(batches))))
        return
    folder = (arguments.folder or Path(tempfile.gettempdir())) / "generated-shards"
    machine = {
        "what": "machine",
        "processor": platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    print(json.dumps(machine | {"numpy": np.__version__, "threads": arguments.threads}))
    try:
        for result in measure(arguments, folder):
            print(json.dumps(result) if arguments.json else shown(result), flush=True)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
