"""When the loop judges the model by held-out text, and that training does not notice; the figures: test_held_out."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from tests.ranks import run_on_ranks
from tests.workers.small_job import PHASE, document
from tests.workers.training.running import forget_after, records, steps, train
from workers.contract.documents import parse_spec
from workers.contract.records import CheckpointRecord, EvaluationRecord, LogRecord, Record, RunStatus, StepRecord
from workers.contract.run.folder import RunFolder
from workers.ranks import process_group
from workers.training import loop
from workers.training.reporting.reporter import Reporter
from workers.training.safety.signals import StopRequest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the text of these tests is prepared once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text that is not learned."""
    path = tmp_path_factory.mktemp("apart") / "apart.txt"
    path.write_text("\n\n".join(f"Number {n} is not here. It snowed {n} times. Then {n} went." for n in range(20)))
    return path


def judged(text: Path, apart: Path, every_steps: int, **changes: Any) -> dict[str, Any]:
    data = {"corpus": [str(text)], "vocab": 90, "validation": [str(apart)]}
    evaluation = {"every_steps": every_steps, "sequences": 7}
    return document(text, data=data, evaluation=evaluation, export={"at_end": False}) | changes


def evaluations(folder: Path) -> list[EvaluationRecord]:
    return [record for record in records(folder) if isinstance(record, EvaluationRecord)]


def weights_and_moments(folder: Path, target: Path) -> dict[str, Any]:
    (newest,) = [path for path in (folder / "checkpoints").iterdir() if path.name.startswith("step-00000006")]
    dcp_to_torch_save(newest, target)
    return torch.load(target, weights_only=True)  # type: ignore[no-any-return]


def assert_same_bits(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_bits(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize(("workers", "zero_stage"), [(1, 2), (2, 0), (2, 3)])
def test_training_is_the_same_to_the_bit_with_and_without(
    workers: int, zero_stage: int, text: Path, apart: Path, home: Path, tmp_path: Path
) -> None:
    dropout = {"model": document(text)["model"] | {"dropout": 0.1}}
    without = document(text, workers, zero_stage, export={"at_end": False}, **dropout)
    judging = judged(text, apart, 1, parallel=without["parallel"], **dropout)
    for name, job in (("without", without), ("with", judging)):
        run_on_ranks(workers, train, job, tmp_path / name, home)
    assert [record.step for record in evaluations(tmp_path / "with")] == [1, 2, 3, 4, 5, 6]
    assert not evaluations(tmp_path / "without")
    measured = {"seq", "time", "step_s", "tokens_per_s", "peak_memory_bytes", "slowest_rank"}
    measured |= {f"{what}_s" for what in ("data", "compute", "optimizer", "waiting")}
    found = [[step.model_dump(exclude=measured) for step in steps(tmp_path / name)] for name in ("with", "without")]
    assert found[0] == found[1]
    assert_same_bits(*(weights_and_moments(tmp_path / name, tmp_path / f"{name}.pt") for name in ("with", "without")))


def test_the_model_is_judged_at_the_interval_at_the_end_of_each_phase_and_at_its_length(
    text: Path, apart: Path, home: Path, tmp_path: Path
) -> None:
    second = PHASE | {"seq_len": 16, "global_batch_size": 4, "steps": 3}
    train(judged(text, apart, 4, phases=[PHASE, second]), tmp_path, home)
    found = evaluations(tmp_path)
    assert [(e.step, e.phase, e.seq_len, e.rows, e.attempt) for e in found] == [
        (4, 0, 32, 7, 1),
        (6, 0, 32, 7, 1),
        (8, 1, 16, 7, 1),
        (9, 1, 16, 7, 1),
    ]
    assert found[1].mlm_loss != found[0].mlm_loss


def test_an_evaluation_stands_between_its_step_and_the_checkpoint_that_holds_it(
    text: Path, apart: Path, home: Path, tmp_path: Path
) -> None:
    train(judged(text, apart, 3, checkpoint={"every_steps": 3, "keep": 9}), tmp_path, home)
    kinds = StepRecord | EvaluationRecord | CheckpointRecord
    order = [(record.kind, record.step) for record in records(tmp_path) if isinstance(record, kinds)]
    assert order.index(("step", 3)) < order.index(("evaluation", 3)) < order.index(("checkpoint", 3))
    for record in evaluations(tmp_path):
        manifest = tmp_path / "checkpoints" / f"step-{record.step:08d}-a1" / "manifest.json"
        stored = EvaluationRecord.model_validate(json.loads(manifest.read_text())["evaluation"])
        assert stored.model_dump(exclude={"seq"}) == record.model_dump(exclude={"seq"})


def test_what_a_checkpoint_holds_is_not_judged_again_and_later_figures_are_the_same(
    text: Path, apart: Path, home: Path, tmp_path: Path
) -> None:
    train(judged(text, apart, 2), tmp_path, home)
    forget_after(tmp_path, 4)
    train(judged(text, apart, 2), tmp_path, home, attempt=2)
    found = evaluations(tmp_path)
    assert [(record.step, record.attempt) for record in found] == [(2, 1), (4, 1), (6, 1), (6, 2)]
    assert found[3].mlm_loss == found[2].mlm_loss


def test_a_model_that_is_beyond_all_numbers_has_null_figures(
    text: Path, apart: Path, home: Path, tmp_path: Path
) -> None:
    hopeless = PHASE | {"lr": 1e38, "steps": 3, "warmup": 0.0}
    train(judged(text, apart, 3, phases=[hopeless]), tmp_path, home)
    (record,) = evaluations(tmp_path)
    assert (record.mlm_loss, record.perplexity) == (None, None)
    assert record.figures.startswith("MLM loss - nats, accuracy ")


def train_until_told_to_end_after(step: int, job: dict[str, Any], folder: Path, home: Path) -> RunStatus:
    """Train, and have the process told to end when this step has been taken, before the model is judged."""
    stop, spec = StopRequest(), parse_spec(job)

    def on_record(record: Record) -> None:
        if isinstance(record, StepRecord) and record.step == step:
            stop.signal = signal.SIGTERM

    with process_group(spec):
        reporter = Reporter(RunFolder(folder), on_record=on_record)
        try:
            return loop.train(spec, RunFolder(folder), home / "data", reporter=reporter, stop=stop)
        finally:
            reporter.close()


@pytest.mark.parametrize("step", [4, 6])
def test_a_run_that_is_told_to_end_leaves_the_judging_to_the_next_attempt(
    step: int, text: Path, apart: Path, home: Path, tmp_path: Path
) -> None:
    job = judged(text, apart, 4, checkpoint={"every_steps": 5, "keep": 9})
    assert train_until_told_to_end_after(step, job, tmp_path / "twice", home) is RunStatus.PAUSED
    assert step not in [record.step for record in evaluations(tmp_path / "twice")]
    train(job, tmp_path / "twice", home, attempt=2)
    train(job, tmp_path / "once", home)
    assert [(record.step, record.attempt) for record in evaluations(tmp_path / "twice")] == [
        (4, 1 + (step == 4)),
        (6, 2),
    ]
    losses = [[record.mlm_loss for record in evaluations(tmp_path / name)] for name in ("once", "twice")]
    assert losses[0] == losses[1]


def test_the_log_says_what_the_model_is_judged_by(text: Path, apart: Path, home: Path, tmp_path: Path) -> None:
    train(judged(text, apart, 6, evaluation={"sequences": 100}), tmp_path, home)
    (line,) = [r.text for r in records(tmp_path) if isinstance(r, LogRecord) and r.text.startswith("held-out text")]
    assert "20 documents" in line
    assert "phases[0]: 20 rows of 100 asked for, which is all" in line
