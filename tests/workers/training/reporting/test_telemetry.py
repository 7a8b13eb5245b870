"""What telemetry says of steps whose tensors come and go, read back from the journal."""

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from optim import Lamb
from tests.ranks import run_on_ranks
from workers.contract.records import RECORD, Record, StepRecord, TensorsRecord
from workers.contract.run.folder import RunFolder
from workers.training.reporting import telemetry
from workers.training.reporting.clock import Mark, StepClock
from workers.training.reporting.reporter import Reporter
from workers.training.reporting.telemetry import Sums, Telemetry
from workers.training.safety.health import Health
from workers.training.safety.signals import StopRequest

CPU = torch.device("cpu")
SUMS = Sums(mlm_loss=14.0, nsp_loss=6.0, correct=1.0, masked=4.0, pairs=8.0, tokens=120.0, samples=8.0, rows=5.0)


class Job:
    """An optimizer over three tensors, of which each step has gradients for some."""

    def __init__(self, folder: Path, *, flush_every: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(telemetry._STEPS_PER_FLUSH, "cpu", flush_every)
        self.folder = RunFolder(folder)
        self.tensors = {name: torch.nn.Parameter(torch.full((2, 2), 0.5)) for name in ("a", "b", "c")}
        groups: list[dict[str, Any]] = [
            {"params": [("a", self.tensors["a"]), ("b", self.tensors["b"])]},
            {"params": [("c", self.tensors["c"])], "layer_adaptation": False},
        ]
        self.optimizer = Lamb(groups, lr=0.01)
        self.reporter = Reporter(self.folder)
        self.telemetry = Telemetry(self.optimizer, CPU, self.reporter, 1, Health(), StopRequest(), StepClock(CPU, 1))
        self.told: list[tuple[tuple[str, ...], list[list[float]]]] = []

    def step(self, number: int, names: str, gradient: float = 0.1) -> None:
        """Take a step in which the named tensors alone have gradients; remember what the optimizer said of it."""
        for name, tensor in self.tensors.items():
            tensor.grad = torch.full((2, 2), gradient * number) if name in names else None
        self.optimizer.step()
        last = self.optimizer.last_step
        assert last is not None
        vectors = (last.trust_ratio, last.weight_norm, last.update_norm)
        self.told.append((last.names, [vector.float().tolist() for vector in vectors]))
        self.telemetry.record(number, 0, 0.01, torch.tensor(SUMS, dtype=torch.float64), flush=number == 10)

    def records(self) -> list[Record]:
        return [RECORD.validate_json(line) for line in self.folder.journal.read_text().splitlines()]

    def steps(self) -> list[StepRecord]:
        return [record for record in self.records() if isinstance(record, StepRecord)]

    def sets(self) -> dict[str, TensorsRecord]:
        return {record.set: record for record in self.records() if isinstance(record, TensorsRecord)}


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(params=[1, 2, 5])
def job(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    job = Job(tmp_path, flush_every=request.param, monkeypatch=monkeypatch)
    yield job
    job.reporter.close()


def unpacked(packed: bytes | None) -> list[float]:
    assert packed is not None
    return list(np.frombuffer(packed, "<f4").tolist())


def test_numbers_stay_with_their_names_where_tensors_come_and_go_within_a_flush(job: Job) -> None:
    for number, names in enumerate(["abc", "b", "ac", "abc", "b", "c", "a", "ab", "abc", "b"], start=1):
        job.step(number, names)
    sets = job.sets()
    assert len(job.steps()) == len(job.told) == 10
    for step, (names_then, vectors) in zip(job.steps(), job.told, strict=True):
        assert step.set is not None
        assert sets[step.set].names == list(names_then)
        assert [unpacked(packed) for packed in step.vectors.values()] == vectors


def test_a_set_is_told_once_before_its_first_step_with_the_flags_of_its_groups(job: Job) -> None:
    for number, names in enumerate(["abc", "b", "abc", "b", "abc", "b", "abc", "b", "abc", "b"], start=1):
        job.step(number, names)
    kinds = [(record.kind, getattr(record, "set", None)) for record in job.records()]
    both, b_alone = dict.fromkeys(each for kind, each in kinds if kind == "tensors")
    assert [kind for kind, _ in kinds].count("tensors") == 2
    for told in (both, b_alone):
        assert kinds.index(("tensors", told)) < kinds.index(("step", told))
    flags = {name: flag for each in job.sets().values() for name, flag in zip(each.names, each.adapted, strict=True)}
    assert flags == {"a": True, "b": True, "c": False}


def test_a_skipped_step_has_no_numbers_and_the_next_one_has_them_again(job: Job) -> None:
    for number, gradient in enumerate([0.1, float("inf"), 0.1, 0.1, float("nan"), 0.1, 0.1, 0.1, 0.1, 0.1], start=1):
        job.step(number, "abc", gradient)
    skipped = [step.step for step in job.steps() if step.skipped]
    assert skipped == [2, 5]
    for step in job.steps():
        assert all((packed is None) == step.skipped for packed in step.vectors.values())


def test_a_step_tells_its_counts_and_the_means_over_the_batch(job: Job) -> None:
    for number in range(1, 11):
        job.step(number, "abc")
    step = job.steps()[0]
    assert (step.attempt, step.rows, step.samples, step.tokens) == (1, 5, 8, 120)
    assert (step.mlm_loss, step.nsp_loss, step.loss, step.mlm_accuracy) == (3.5, 0.75, 4.25, 0.25)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert step.peak_memory_bytes is not None
    assert used / 2 < step.peak_memory_bytes <= used
    assert step.tokens_per_s == pytest.approx(120 / step.step_s)


def test_a_step_without_masked_positions_has_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path, flush_every=1, monkeypatch=monkeypatch)
    monkeypatch.setattr("tests.workers.training.reporting.test_telemetry.SUMS", SUMS._replace(mlm_loss=0.0, masked=0.0))
    job.step(1, "abc")
    job.reporter.close()
    assert (job.steps()[0].loss, job.steps()[0].mlm_loss, job.steps()[0].nsp_loss) == (None, None, 0.75)


def test_numbers_that_are_not_as_many_as_the_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path, flush_every=2, monkeypatch=monkeypatch)
    job.step(1, "abc")
    job.telemetry._steps[0] = job.telemetry._steps[0]._replace(names=("a", "b"))
    with pytest.raises(ValueError, match=r"trust_ratio of step 1 has 3 numbers, but the set .* has 2 tensors"):
        job.step(2, "abc")
    job.reporter.close()


@pytest.mark.parametrize(
    ("step_s", "steps"), [(0.0, 10), (0.01, 10), (0.2, 10), (0.25, 8), (0.7, 2), (1.9, 1), (2.1, 1), (60.0, 1)]
)
def test_steps_are_flushed_at_least_every_two_seconds_or_each_where_they_take_longer(step_s: float, steps: int) -> None:
    assert telemetry._steps_per_flush(10, step_s) == steps


def test_where_every_step_is_flushed_it_stays_so() -> None:
    assert telemetry._steps_per_flush(1, 0.001) == 1


def flushed(folder: Path, alone_s: list[float]) -> None:
    """Take a step that each rank says to have computed for a while of its own."""
    tensor = torch.nn.Parameter(torch.ones(2))
    optimizer, clock = Lamb([("a", tensor)]), StepClock(CPU, 1)
    reporter = Reporter(RunFolder(folder)) if dist.get_rank() == 0 else None
    told = Telemetry(optimizer, CPU, reporter, 1, Health(), StopRequest(), clock)
    tensor.grad = torch.ones(2)
    clock.mark(Mark.BEGIN)
    clock.mark(Mark.GATHERED)
    time.sleep(alone_s[dist.get_rank()])
    for mark in (Mark.LAST, Mark.COMPUTED, Mark.END):
        clock.mark(mark)
    optimizer.step()
    told.record(1, 0, 0.01, torch.tensor(SUMS, dtype=torch.float64), flush=True)
    if reporter:
        reporter.close()


def test_the_slowest_of_three_ranks_is_named_with_the_time_that_they_wait_for_it_on_average(tmp_path: Path) -> None:
    run_on_ranks(3, flushed, tmp_path, [0.0, 0.6, 0.0])
    records = [RECORD.validate_json(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    (step,) = [record for record in records if isinstance(record, StepRecord)]
    assert step.slowest_rank == 1
    assert step.compute_s is not None
    assert step.waiting_s is not None
    assert 0.0 < step.compute_s < step.step_s
    assert step.waiting_s > 0.0
