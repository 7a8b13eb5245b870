"""The paper in miniature: the same budget of text at growing batches, LAMB by the rule beside AdamW with a search.

    python benchmarks/batch_scaling.py --json docs/batch_scaling.json

trains a small BERT (bert-tiny, 64 tokens) for one epoch of builtin:austen at each global batch, and judges it by
builtin:austen-valid:

- LAMB by the rule: a learning rate is searched at the smallest batch and grows from there with the square root of the
  batch, the warm-up with the batch;
- AdamW by the same rule, and AdamW with a search of its own at every batch;
- LAMB with the numbers that the paper gives BERT-Large at these batches.

Runs are made one after the other by this project's own training. Each that is done is written to the JSON file, and a
run that was interrupted goes on from its checkpoint when the program is started again. `--report` makes no run, but
writes the picture beside the JSON file, as .svg, and the tables into the .md beside it, between the two marks that it
has: what stands before and after them is written by hand and stays.
"""

import argparse
import contextlib
import itertools
import os
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a program run by its path looks no further than there

import yaml

from benchmarks.report import insert
from benchmarks.scaling.plan import Run, next_run
from benchmarks.scaling.report import draw, section
from benchmarks.scaling.results import Result, Results, Setting, read
from workers.contract.documents import parse_spec
from workers.contract.records import RECORD, EvaluationRecord, StepRecord
from workers.contract.run.folder import RunFolder

BATCHES = {"cpu": (64, 256, 1024), "cuda": (64, 256, 1024, 4096)}
MICRO_BATCH = {"cpu": 64, "cuda": 1024}
VOCABULARY, SEQ_LEN, HELD_OUT_ROWS = 8192, 64, 1024
CHECKPOINTS = 8
"""In each run, so that no more than an eighth of it is lost."""


def document(run: Run, setting: Setting) -> dict[str, Any]:
    """Return the job file of a run."""
    steps = setting.steps(run.batch)
    return {
        "name": name(run),
        "seed": run.seed,
        "model": {"preset": setting.model, "max_positions": setting.seq_len, "dropout": 0.0},
        "data": {
            "corpus": ["builtin:austen"],
            "validation": ["builtin:austen-valid"],
            "vocab": setting.vocabulary,
        },
        "phases": [
            {
                "seq_len": setting.seq_len,
                "global_batch_size": run.batch,
                "micro_batch_size": min(run.batch, MICRO_BATCH[setting.device]),
                "steps": steps,
                "lr": run.lr,
                "warmup": run.warmup,
            }
        ],
        "optimizer": {"name": run.optimizer},
        "parallel": {"workers": 1, "gpus_per_worker": 1 if setting.device == "cuda" else 0},
        "evaluation": {"every_steps": steps, "sequences": HELD_OUT_ROWS},
        "checkpoint": {"every_steps": max(1, steps // CHECKPOINTS), "keep": 1},
        "export": {"at_end": False},
    }


def name(run: Run) -> str:
    """Return a name that no other run has."""
    return f"{run.optimizer}-{run.batch}-lr{run.lr:g}-warmup{run.warmup:g}-seed{run.seed}"


def train(run: Run, setting: Setting, folder: Path) -> int:
    """Train one run in its folder, from its newest checkpoint if there is one; return the exit code."""
    from workers.train import main as train_job

    folder.mkdir(parents=True, exist_ok=True)
    file = beside(folder, ".yaml")
    file.write_text(yaml.safe_dump(document(run, setting)))
    with beside(folder, ".log").open("a") as log, contextlib.redirect_stdout(log):
        return train_job([str(file), "--run", str(folder), "--json"])


def beside(folder: Path, suffix: str) -> Path:
    """Return the file beside a folder with the same name; the points of rates in it are no suffix."""
    return folder.with_name(folder.name + suffix)


def result(run: Run, folder: Path) -> Result | None:
    """Return what came of a run by its journal; None where it neither reached its end nor diverged."""
    from workers.training.loop import MAX_BAD_IN_A_ROW

    records = [RECORD.validate_json(line) for line in RunFolder(folder).journal.read_text().splitlines()]
    steps = {record.step: record for record in records if isinstance(record, StepRecord)}  # the newest of each number
    judged = next((record for record in reversed(records) if isinstance(record, EvaluationRecord)), None)
    last = [steps[step] for step in sorted(steps)[-MAX_BAD_IN_A_ROW:]]
    if judged is None and not (
        len(last) == MAX_BAD_IN_A_ROW and all(step.skipped or step.loss is None for step in last)
    ):
        return None
    return Result(
        run=run,
        steps=len(steps),
        mlm_loss=judged.mlm_loss if judged else None,
        mlm_accuracy=judged.mlm_accuracy if judged else None,
        rows=judged.rows if judged else None,
        tokens=sum(step.tokens or 0 for step in steps.values()),
        step_s=sum(step.step_s for step in steps.values()),
    )


def epoch_rows() -> int:
    """Prepare the text if that is not done; return the rows of an epoch."""
    from workers.contract.arguments import home
    from workers.corpus.prepare import prepare
    from workers.samples.dataset import open_phase

    setting = Setting("bert-tiny", SEQ_LEN, VOCABULARY, 1, 1, BATCHES["cpu"], (0,), "cpu")
    spec = parse_spec(document(setting.plan.as_in_the_paper(64, 0), setting))
    return len(open_phase(prepare(spec.data, home() / "data"), spec, spec.phases[0]))


def opened(file: Path, arguments: argparse.Namespace) -> Results:
    """Return what the file holds, or no results where there is no file.

    Raises:
        ValueError: it is of another setting than the one that was asked for.
    """
    batches = tuple(arguments.batches or BATCHES[arguments.device])
    seeds = tuple(range(arguments.seeds))
    rows = epoch_rows()
    setting = Setting("bert-tiny", SEQ_LEN, VOCABULARY, arguments.epochs, rows, batches, seeds, arguments.device)
    if not file.exists():
        return Results(setting)
    results = read(file)
    if results.setting != setting:
        raise ValueError(f"{file} has runs of {results.setting}, not of {setting}; name another file with --json")
    return results


def make_runs(results: Results, file: Path, work: Path, most: int | None) -> int:
    """Make the missing runs one after the other, `most` at the most; return the exit code."""
    setting = results.setting
    for _ in itertools.count() if most is None else range(most):
        run = next_run(setting.plan, results.losses)
        if run is None:
            print(f"all {len(results.results)} runs are done")
            break
        folder = work / name(run)
        print(f"{len(results.results)} runs are done; next: {name(run)}, {setting.steps(run.batch)} steps", flush=True)
        code = train(run, setting, folder)
        done = result(run, folder)
        if done is None:
            print(f"{name(run)} ended with exit code {code}; see {beside(folder, '.log')}", file=sys.stderr)
            return code or 1
        results = results.add(done)
        results.write(file)
        shutil.rmtree(folder)
        loss = "diverged" if done.mlm_loss is None else f"held-out MLM loss {done.mlm_loss:.3f}"
        print(f"{name(run)}: {loss}, {done.tokens / done.step_s:,.0f} tokens/s", flush=True)
    return 0


def write_report(results: Results, file: Path) -> None:
    """Write picture and tables beside the JSON file."""
    page, picture = file.with_suffix(".md"), file.with_suffix(".svg")
    draw(results, picture)
    text = page.read_text() if page.exists() else ""
    page.write_text(insert(text, section(results, picture.name)))


def main() -> int:
    """Make the runs that are missing, or write the report of those that are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("docs/batch_scaling.json"), metavar="FILE")
    parser.add_argument("--work", type=Path, default=Path("runs/batch_scaling"), help="folder of runs under way")
    parser.add_argument("--device", choices=list(BATCHES), default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", help="ascending; by default those of the device")
    parser.add_argument("--epochs", type=float, default=1.0, help="the budget of each run")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--runs", type=int, metavar="N", help="make no more than so many")
    parser.add_argument("--report", action="store_true", help="make no run; write table and picture of those done")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        results = read(arguments.json) if arguments.report else opened(arguments.json, arguments)
    except (OSError, ValueError) as problem:
        parser.error(str(problem))
    if not arguments.report:
        return make_runs(results, arguments.json, arguments.work, arguments.runs)
    try:
        write_report(results, arguments.json)
    except ModuleNotFoundError as problem:
        parser.error(f"{problem}; get it with: pip install --constraint constraints.txt --group bench")
    return 0


if __name__ == "__main__":
    sys.exit(main())
