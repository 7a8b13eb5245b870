"""Tokens a second of a job's model and batch: our loop beside transformers.Trainer, in turns, in one run.

    python benchmarks/throughput.py configs/demo.yaml --threads 1
    python benchmarks/throughput.py configs/demo.yaml --model bert-base-uncased --rows 32 --seq-len 128

One worker, no Ray. Both train the same model from the same weights on the same samples with the same sequence length,
micro-batch and accumulation; the Trainer gets its batches ready-made and the fused AdamW of torch. The turns alternate,
so that a machine whose speed drifts treats both alike; the ratio is that of the medians. Before each turn the machine
multiplies matrices of the sizes of a feed-forward layer; our rate is also given as a part of that one. For it, the
matrix products of the model are counted, with the head on masked positions alone, times 3 for forward and backward.

With `--service` each turn also runs the same loop as a job of a control plane with Ray, on the same machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from torch import Tensor
from torch.utils.data import Dataset

from workers.contract.documents import parse_spec
from workers.contract.run.folder import RunFolder
from workers.contract.spec.job import JobSpec
from workers.corpus.prepare import prepare
from workers.model.bert import build
from workers.ranks import process_group
from workers.samples.dataset import PreTrainingData
from workers.training import loop
from workers.training.reporting.reporter import Reporter

MATMULS = 15
"""Products that the machine's rate is the median of, before each turn."""
WARM_UP = 3
"""Steps of each turn that are not counted."""


class Samples(Dataset[dict[str, Tensor]]):
    """The samples of the first steps, one by one, labelled as BertForPreTraining wants them."""

    def __init__(self, data: PreTrainingData, count: int) -> None:
        batch = data.batch(range(count))
        labels = torch.full_like(batch.input_ids, -100)
        labels.view(-1)[batch.masked_positions] = batch.masked_labels
        self.columns = {
            "input_ids": batch.input_ids,
            "token_type_ids": batch.token_type_ids,
            "attention_mask": batch.attention_mask,
            "labels": labels,
            "next_sentence_label": batch.next_sentence_labels,
        }
        self.n_tokens = batch.n_tokens

    def __len__(self) -> int:
        return len(self.columns["input_ids"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


class StepTimes(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """The wall time of every optimizer step."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        """Note the moment at which an optimizer step ended."""
        self.moments.append(time.perf_counter())


def matmul_flops_per_token(spec: JobSpec, vocab_size: int, masked: float) -> float:
    """Return the floating-point operations that a token of a row costs forward and backward, in matrix products alone.

    `masked` is the share of positions that the head is computed on.
    """
    sizes, seq_len = spec.model.architecture, spec.phases[0].seq_len
    layer = 4 * sizes.hidden**2 + 2 * sizes.hidden * sizes.intermediate + 2 * seq_len * sizes.hidden
    head = sizes.hidden**2 + sizes.hidden * vocab_size
    return 3 * 2 * (sizes.layers * layer + masked * head)


def matmul_rate(spec: JobSpec) -> float:
    """Return how many floating-point operations a second the machine reaches in a feed-forward layer's products."""
    sizes, phase = spec.model.architecture, spec.phases[0]
    rows = phase.micro_batch_size * phase.seq_len
    left, right = torch.randn(rows, sizes.hidden), torch.randn(sizes.hidden, sizes.intermediate)
    flops = 2 * rows * sizes.hidden * sizes.intermediate
    times = []
    for _ in range(MATMULS):
        begin = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - begin)
    return flops / statistics.median(times)


def ours(spec: JobSpec, home: Path, folder: Path) -> list[float]:
    """Tokens a second of each counted step of our loop."""
    folder.mkdir(parents=True)
    run_folder = RunFolder(folder)
    reporter = Reporter(run_folder)
    with process_group(spec):
        loop.train(spec, run_folder, home / "data", reporter=reporter)
    reporter.close()
    return counted(run_folder.journal)


def counted(events: Path) -> list[float]:
    """Tokens a second of the counted steps in a run folder's records."""
    records = [json.loads(line) for line in events.read_text().splitlines()]
    rates = [record["tokens_per_s"] for record in records if record["kind"] == "step"]
    return rates[WARM_UP:]


def theirs(spec: JobSpec, data: PreTrainingData, folder: Path) -> list[float]:
    """Tokens a second of each counted step of transformers.Trainer."""
    phase = spec.phases[0]
    samples, times = Samples(data, phase.global_batch_size * phase.steps), StepTimes()
    bert = build(spec.model, data.vocab_size, spec.seed, pad_id=0)
    model = transformers.BertForPreTraining(bert.config)
    model.load_state_dict(bert.state_dict())
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=phase.micro_batch_size,
            gradient_accumulation_steps=phase.global_batch_size // phase.micro_batch_size,
            max_steps=phase.steps,
            learning_rate=1e-3,
            optim="adamw_torch_fused",
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=samples,
        callbacks=[times],
    )
    trainer.train()
    per_step = samples.n_tokens / phase.steps
    pairs = zip(times.moments[WARM_UP - 1 : -1], times.moments[WARM_UP:], strict=True)
    return [per_step / (end - begin) for begin, end in pairs]


def as_a_job(document: dict[str, Any], home: Path) -> list[float]:
    """Tokens a second of each counted step of the same job on a control plane with Ray."""
    home.mkdir()
    file = home / "job.yaml"
    file.write_text(yaml.safe_dump(document))
    command = ["bigbatch", "demo", str(file), "--home", str(home), "--port", "8127"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    (events,) = home.glob("runs/*/events.jsonl")
    return counted(events)


def main() -> None:
    """Measure, print a table, and with --json one line for machines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", help="a preset in place of the file's model")
    parser.add_argument("--rows", type=int, help="rows of a step, all in one micro-batch, in place of the file's")
    parser.add_argument("--seq-len", type=int, help="tokens of a row in place of the file's")
    parser.add_argument(
        "--vocab",
        type=int,
        help="entries of the vocabulary in place of the file's, or fewer where the text gives fewer",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=13, help=f"optimizer steps a turn, {WARM_UP} of them not counted")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--service", action="store_true", help="also as a job of a control plane with Ray")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP:
        parser.error(f"--steps {arguments.steps}: the first {WARM_UP} are not counted, so give more")
    document = changed(yaml.safe_load(arguments.file.read_text()), arguments)
    spec = parse_spec(document)
    torch.set_num_threads(arguments.threads)
    rates: dict[str, list[float]] = {"bigbatch": [], "transformers.Trainer": []}
    if arguments.service:
        rates["bigbatch as a job"] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data = PreTrainingData(prepare(spec.data, home / "data"), seq_len=spec.phases[0].seq_len, seed=spec.seed)
        batch = data.batch(range(spec.phases[0].global_batch_size))
        flops = matmul_flops_per_token(spec, data.vocab_size, len(batch.masked_labels) / batch.input_ids.numel())
        machine = []
        for turn in range(arguments.turns):
            machine.append(matmul_rate(spec))
            rates["bigbatch"] += ours(spec, home, home / f"ours-{turn}")
            rates["transformers.Trainer"] += theirs(spec, data, home / f"theirs-{turn}")
            if arguments.service:
                rates["bigbatch as a job"] += as_a_job(document, home / f"service-{turn}")
    # A padded position is computed like any other, and no rate counts it.
    filled = batch.n_tokens / batch.input_ids.numel()
    report(rates, statistics.median(machine), flops / filled, arguments)


def changed(document: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the job as it is measured: its first phase, on one worker, without evaluation or export."""
    phase = document["phases"][0] | {"steps": arguments.steps}
    if arguments.rows:
        phase |= {"global_batch_size": arguments.rows, "micro_batch_size": arguments.rows}
    if arguments.seq_len:
        phase["seq_len"] = arguments.seq_len
    data = {name: value for name, value in document["data"].items() if name != "validation"}
    if arguments.vocab:
        data["vocab"] = arguments.vocab
    own = {name: value for name, value in document.items() if name != "evaluation"}
    return own | {
        "data": data,
        "model": {"preset": arguments.model} if arguments.model else document["model"],
        "phases": [phase],
        "parallel": {"workers": 1, "cpus_per_worker": arguments.threads},
        "checkpoint": {"every_steps": arguments.steps},
        "export": {"at_end": False},
    }


def report(rates: dict[str, list[float]], machine: float, flops: float, arguments: argparse.Namespace) -> None:
    """Print the medians, how many times faster our loop is, and its part of what the machine multiplies.

    `machine` is in operations a second, `flops` are the operations that a real token costs.
    """
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: medians["bigbatch"] / median for name, median in medians.items()}
    part = medians["bigbatch"] * flops / machine
    if arguments.json:
        found = {"threads": arguments.threads, "tokens_per_s": medians, "bigbatch_over": ratios}
        print(json.dumps(found | {"machine_gflops": machine / 1e9, "part_of_machine": part}))
        return
    print(f"{arguments.file}, 1 worker, {arguments.threads} threads, torch {torch.__version__}, medians of steps")
    for name, values in rates.items():
        low, high = min(values), max(values)
        print(f"{name:22} {medians[name]:10,.0f} tokens/s ({low:,.0f} to {high:,.0f})  bigbatch x{ratios[name]:.2f}")
    print(f"bigbatch reaches {part:.0%} of the {machine / 1e9:,.1f} GFLOP/s of the machine's matrix products")


if __name__ == "__main__":
    main()
