"""`python -m workers.evaluation.probe DIR`: is a pre-trained encoder worth more than a random one of the same shape?

Both are fine-tuned to tell of WordNet's glosses which of ten classes the word belongs to: the same few samples in the
same order, by the same AdamW, three times with other seeds. The budget is short on purpose: an encoder that knows
nothing learns little from so few samples. Shapes: B samples, S tokens, H hidden size, C classes.
"""

import argparse
import json
import lzma
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, BatchEncoding, BertConfig, BertModel
from transformers.utils import logging

GLOSSES = Path(__file__).with_name("wordnet.tsv.xz")
SEEDS = (0, 1, 2)
TRAINED, TESTED = 1024, 512
BATCH, TOKENS = 32, 16
LR, WARMUP = 3e-4, 0.1
"""Of AdamW, at the end of the warm-up and falling to zero; and the share of the steps that warm up."""


class ProbeError(ValueError):
    """A folder cannot be probed."""


@dataclass(frozen=True, slots=True)
class Accuracies:
    """Shares of the tested samples that were told right, one for each seed."""

    each: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.each)

    @property
    def spread(self) -> float:
        """Between the best and the worst seed."""
        return max(self.each) - min(self.each)

    def __str__(self) -> str:
        """Read as a part of a message."""
        return f"{self.mean:.1%} (seeds differ by {self.spread:.1%})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found."""

    encoder: Accuracies
    random: Accuracies
    """Of an encoder of the same shape with random weights."""

    @property
    def shows_a_margin(self) -> bool:
        """Whether the encoder beats the random one by more than the seeds differ."""
        return self.encoder.mean - self.random.mean > max(self.encoder.spread, self.random.spread)


class _Classifier(nn.Module):
    """An encoder, the mean of its hidden states, and one linear layer."""

    def __init__(self, encoder: nn.Module, hidden: int, n_classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(hidden, n_classes)

    def forward(self, encoded: BatchEncoding) -> Tensor:
        """Return the scores, (B, C)."""
        hidden_BSH = self.encoder(**encoded).last_hidden_state
        mask_BS1 = encoded["attention_mask"].unsqueeze(-1)
        scores_BC: Tensor = self.head((hidden_BSH * mask_BS1).sum(1) / mask_BS1.sum(1))
        return scores_BC


def probe(folder: Path, report: Callable[[float], None] = lambda _done: None) -> Verdict:
    """Fine-tune the encoder in a folder of `transformers`, and a random one of its shape.

    Args:
        folder: an export, or another folder with a BERT and its tokenizer.
        report: told which part is done, 0 to 1.

    Raises:
        ProbeError: the folder cannot be loaded.
    """
    try:
        config = BertConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        BertModel.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for a folder that is damaged or of another model
        raise ProbeError(f"{folder} is not a BERT that transformers loads: {error}") from error
    glosses, begun = samples(), 0

    def accuracy(encoder: Callable[[], nn.Module], seed: int) -> float:
        nonlocal begun
        report(begun / (2 * len(SEEDS)))
        begun += 1
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = _Classifier(encoder(), config.hidden_size, glosses.n_classes)
            return _accuracy(model, glosses, tokenizer, seed)

    arms: list[Callable[[], nn.Module]] = [
        lambda: BertModel.from_pretrained(folder, local_files_only=True),
        lambda: BertModel(config),
    ]
    return Verdict(*(Accuracies(tuple(accuracy(arm, seed) for seed in SEEDS)) for arm in arms))


class Samples(NamedTuple):
    """Glosses, each with the number of its class."""

    learned: list[tuple[str, int]]
    tested: list[tuple[str, int]]
    n_classes: int


def samples() -> Samples:
    """Return the same few of WordNet's glosses each time."""
    with lzma.open(GLOSSES, "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    classes = sorted({name for name, _ in rows})
    chosen = random.Random(0).sample(rows, TRAINED + TESTED)
    numbered = [(gloss, classes.index(name)) for name, gloss in chosen]
    return Samples(numbered[:TRAINED], numbered[TRAINED:], len(classes))


def _accuracy(model: _Classifier, glosses: Samples, tokenizer: Callable[..., BatchEncoding], seed: int) -> float:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learned = random.Random(seed).sample(glosses.learned, len(glosses.learned))
    _learn(model.to(device), [_encode(part, tokenizer, device) for part in _parts(learned)])
    model.eval()
    with torch.inference_mode():
        parts = [_encode(part, tokenizer, device) for part in _parts(glosses.tested)]
        right = sum(int((model(encoded).argmax(-1) == labels_B).sum()) for encoded, labels_B in parts)
    return right / len(glosses.tested)


def _parts(rows: list[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    return (rows[at : at + BATCH] for at in range(0, len(rows), BATCH))


def _learn(model: nn.Module, batches: Sequence[tuple[BatchEncoding, Tensor]]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    warmup = int(WARMUP * len(batches))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (len(batches) - step) / (len(batches) - warmup))
    )
    model.train()
    for encoded, labels_B in batches:
        F.cross_entropy(model(encoded), labels_B).backward()  # type: ignore[no-untyped-call]  # torch has no types here
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def _encode(
    part: Sequence[tuple[str, int]], tokenizer: Callable[..., BatchEncoding], device: torch.device
) -> tuple[BatchEncoding, Tensor]:
    texts, labels = zip(*part, strict=True)
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
    return encoded.to(device), torch.tensor(labels, device=device)


def main(command_line: Sequence[str] | None = None) -> int:
    """Probe the folder that the command line names; return the exit code."""
    given = _parser().parse_args(command_line)
    logging.set_verbosity_error()  # an encoder needs no heads, and transformers tells of each that it leaves out
    logging.disable_progress_bar()
    try:
        with _show(as_json=given.json) as report:
            verdict = probe(given.dir, report)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except ProbeError as error:
        problem = {"title": "The folder was not probed.", "detail": str(error)}
        sys.stderr.write(f"{json.dumps(problem) if given.json else f'bigbatch: {error}'}\n")
        return 2
    sys.stdout.write(told(verdict, as_json=given.json))
    return 0


def told(verdict: Verdict, *, as_json: bool) -> str:
    """Write a verdict for people, or as a line of JSON."""
    arms = {"encoder": verdict.encoder, "random": verdict.random}
    if as_json:
        found = {name: asdict(arm) | {"mean": arm.mean, "spread": arm.spread} for name, arm in arms.items()}
        return json.dumps(found | {"shows_a_margin": verdict.shows_a_margin}) + "\n"
    says = "more" if verdict.shows_a_margin else "no more"
    lines = [f"{name:<9}{arm}" for name, arm in arms.items()]
    lines.append(f"The encoder is better than a random one of its shape by {says} than the seeds differ.")
    return "".join(f"{line}\n" for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.evaluation.probe", description="Probe an encoder.")
    parser.add_argument("dir", type=Path, help="a folder of transformers, such as an export")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


@contextmanager
def _show(*, as_json: bool) -> Iterator[Callable[[float], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json) as bar:
        task = bar.add_task("fine-tuning", total=1.0)
        yield lambda done: bar.update(task, completed=done)


if __name__ == "__main__":
    sys.exit(main())
