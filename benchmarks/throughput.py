"""Tokens a second of a job's model and batch: our loop beside transformers.Trainer, in turns, in one run.

    python benchmarks/throughput.py configs/demo.yaml --threads 1

One worker, no Ray. Both train the same model from the same weights on the same samples with the same sequence length,
micro-batch and accumulation; the Trainer gets its batches ready-made and the fused AdamW of torch. The turns alternate,
so that a machine whose speed drifts treats both alike; the ratio is that of the medians.

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
from workers.training.reporter import Reporter

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
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=13, help=f"optimizer steps a turn, {WARM_UP} of them not counted")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--service", action="store_true", help="also as a job of a control plane with Ray")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    document = yaml.safe_load(arguments.file.read_text())
    document["phases"] = [document["phases"][0] | {"steps": arguments.steps}]
    document["parallel"] = {"workers": 1, "cpus_per_worker": arguments.threads}
    document["checkpoint"] = {"every_steps": arguments.steps}
    spec = parse_spec(document)
    torch.set_num_threads(arguments.threads)
    rates: dict[str, list[float]] = {"bigbatch": [], "transformers.Trainer": []}
    if arguments.service:
        rates["bigbatch as a job"] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data = PreTrainingData(prepare(spec.data, home / "data"), seq_len=spec.phases[0].seq_len, seed=spec.seed)
        for turn in range(arguments.turns):
            rates["bigbatch"] += ours(spec, home, home / f"ours-{turn}")
            rates["transformers.Trainer"] += theirs(spec, data, home / f"theirs-{turn}")
            if arguments.service:
                rates["bigbatch as a job"] += as_a_job(document, home / f"service-{turn}")
    report(rates, arguments)


def report(rates: dict[str, list[float]], arguments: argparse.Namespace) -> None:
    """Print the medians and how many times faster our loop is."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: medians["bigbatch"] / median for name, median in medians.items()}
    if arguments.json:
        print(json.dumps({"threads": arguments.threads, "tokens_per_s": medians, "bigbatch_over": ratios}))
        return
    print(f"{arguments.file}, 1 worker, {arguments.threads} threads, torch {torch.__version__}, medians of steps")
    for name, values in rates.items():
        low, high = min(values), max(values)
        print(f"{name:22} {medians[name]:10,.0f} tokens/s ({low:,.0f} to {high:,.0f})  bigbatch x{ratios[name]:.2f}")


if __name__ == "__main__":
    main()
