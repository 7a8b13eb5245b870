"""`python -m benchmarks.card.measure MODEL DEVICE FOLDER FILE`: measure one model, and write a JSON object a line.

The plain loops come first, since they take seconds; what is done is in the file if the program is ended for its time.
"""

import gc
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.card import ours
from benchmarks.card.loops import CONTENDERS, matrix_rate
from benchmarks.card.report import OURS, Profiled, Row
from benchmarks.card.sizes import SIZES, Size
from workers.contract.documents import parse_spec
from workers.contract.spec.data import Data
from workers.corpus import vocabulary
from workers.corpus.prepare import prepare
from workers.corpus.shards import VOCABULARY
from workers.samples.dataset import PreTrainingData


def main() -> None:
    """Measure, row by row."""
    model, device, folder, file = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    sizes, home = SIZES[model], folder / "home" / "data"
    words = padded_vocabulary(home, folder / f"vocab-{model}.txt", sizes[0].vocabulary)
    spec = parse_spec(ours.document(sizes, words, device))
    prepared = prepare(spec.data, home)
    matrix = matrix_rate(device)
    with file.open("a") as lines:

        def write(result: Row | Profiled) -> None:
            lines.write(json.dumps({type(result).__name__: asdict(result)}) + "\n")
            lines.flush()

        for size in sizes:
            data = PreTrainingData(prepared, seq_len=size.seq_len, seed=0)
            for name, measure in CONTENDERS.items():
                forget(device)
                tokens_per_s = measure(size, data, device)
                write(row(size, name, tokens_per_s, matrix, peak_bytes(device)))
        forget(device)
        watch = ours.train(sizes, words, folder / f"speed-{model}", home, device)
        for phase, size in enumerate(sizes):
            write(row(size, OURS, watch.tokens_per_s(phase), matrix, watch.peak_memory_bytes(phase)))
            write(Profiled(size.model, size.seq_len, watch.profiles[phase]))


def padded_vocabulary(home: Path, file: Path, size: int) -> Path:
    """Write a vocabulary of so many entries, those that the text has no use for at its end."""
    data = Data(corpus=("builtin:austen",), vocab=min(size, 8192))
    tokens = vocabulary.load(prepare(data, home) / VOCABULARY)
    unused = [f"[unused{number}]" for number in range(size - len(tokens))]
    file.write_text("".join(f"{token}\n" for token in [*tokens, *unused]))
    return file


def row(size: Size, name: str, tokens_per_s: float, matrix: float, peak: int | None) -> Row:
    """Return a row of the table."""
    useful = tokens_per_s * size.flops_per_token
    return Row(size.model, size.seq_len, size.micro_batch, size.micro_batches, name, tokens_per_s, useful, matrix, peak)


def forget(device: str) -> None:
    """Give back the memory of the contender before."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> int | None:
    """Most memory that was allocated on the GPU since `forget`; None without one."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


if __name__ == "__main__":
    main()
