from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.workers.planning.planned import make_spec
from workers.contract.problems import SpecError
from workers.contract.records import AnyRecord, RunStatus, StatusRecord, StepRecord
from workers.contract.run.folder import RunFolder
from workers.planning.rate import Rate, measured


def begun(workers: int) -> StatusRecord:
    return StatusRecord(status=RunStatus.RUNNING, attempt=1, world_size=workers)


def step(tokens_per_s: float, phase: int = 0) -> StepRecord:
    return StepRecord(
        step=1,
        phase=phase,
        loss=None,
        mlm_loss=None,
        nsp_loss=None,
        mlm_accuracy=None,
        lr=0.1,
        grad_norm=None,
        clip_coef=None,
        skipped=True,
        tokens_per_s=tokens_per_s,
        step_s=1,
        trust_ratio=None,
    )


def run_of(path: Path, records: Sequence[AnyRecord]) -> Path:
    folder = RunFolder(path)
    spec = make_spec()
    short, long = spec.phases[0], spec.phases[0].model_copy(update={"seq_len": 32})
    folder.put_spec(spec.model_copy(update={"phases": (short, long)}))
    with folder.journal.open("wb") as journal:
        for seq, record in enumerate(records, start=1):
            line = record.model_copy(update={"seq": seq}).model_dump_json()
            journal.write(line.encode() + b"\n")
    return path


def test_the_rate_of_each_length_of_rows_is_the_median_without_the_first_steps_of_an_attempt(tmp_path: Path) -> None:
    first: list[AnyRecord] = [begun(1), step(1), step(1), step(30), step(20), step(90)]
    run = run_of(tmp_path, [*first, step(7, phase=1)])
    assert measured(run) == {16: Rate(30, 1), 32: Rate(7, 1)}


def test_the_number_of_workers_that_was_used_last_counts(tmp_path: Path) -> None:
    run = run_of(tmp_path, [begun(1), *([step(10)] * 9), begun(2), *([step(18)] * 4)])
    assert measured(run) == {16: Rate(18, 2)}


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    run = run_of(tmp_path, [begun(1), *([step(10)] * 3)])
    with RunFolder(run).journal.open("ab") as journal:
        journal.write(b'{"kind": "st')
    assert measured(run) == {16: Rate(10, 1)}


def test_a_run_without_enough_steps_has_no_rate(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no attempt has taken more than 2 steps.*trained for longer"):
        measured(run_of(tmp_path, [begun(1), step(10), step(10)]))


def test_more_workers_are_faster_in_proportion_to_those_measured_and_a_given_rate_is_that_of_all() -> None:
    assert Rate(100, 2).on(8) == 400
    assert Rate(100, None).on(8) == 100
