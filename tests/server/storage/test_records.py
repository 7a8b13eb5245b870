import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import JobNotFoundError, RecordError
from server.jobs.status import JobStatus
from server.jobs.verbs import cancel
from tests.server.storage.house import SPEC, House, read
from tests.server.writer import Writer
from tests.serving import Served, run_records, status, step, tensors, unpacked
from workers.contract.push import Command, Push


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)), max_size=12))
def test_however_pushes_overlap_repeat_and_skip_every_record_is_stored_once(
    house: House, cuts: list[tuple[int, int]]
) -> None:
    house.job, _ = house.store.create(SPEC)
    every = read(*run_records(9))
    acknowledged = 0
    for start, length in cuts:
        stored = house.records.ingest(house.job.id, every[start : start + length])
        reached = min(start + length, len(every))
        assert stored == (max(acknowledged, reached) if start <= acknowledged else acknowledged)
        acknowledged = stored
        assert [record["seq"] for record in house.stored()] == list(range(1, acknowledged + 1))
    assert house.records.ingest(house.job.id, every) == len(every)
    assert len(house.stored()) == len(every)
    assert house.now().status is JobStatus.SUCCEEDED


def test_a_gap_stores_nothing_and_tells_where_to_go_on(house: House) -> None:
    house.ingest(status(1, "RUNNING"), tensors(2))
    assert house.ingest(step(5, 3)) == 2
    assert house.now().step == 0


def test_a_step_that_was_computed_again_takes_the_place_of_the_first_one(house: House) -> None:
    house.ingest(tensors(1), step(2, 1), step(3, 2), step(4, 1, loss=5.0))
    assert [(record["seq"], record["step"]) for record in house.stored()[1:]] == [(3, 2), (4, 1)]
    assert house.now().loss == 5.0
    # The number that was taken away is not asked for again.
    assert house.ingest(step(2, 1)) == 4


def test_trust_ratios_come_back_as_they_were_and_missing_ones_as_null(house: House) -> None:
    house.ingest(tensors(1), step(2, 1, ratios=[0.1, None, 1e-9]))
    assert unpacked(house.stored()[1]["trust_ratio"]) == [0.1, None, 1e-9]


def test_records_of_an_unknown_job_are_not_taken(house: House) -> None:
    with pytest.raises(JobNotFoundError):
        house.records.take("nope", Push(records=[]))


def test_who_listens_hears_of_new_records_and_of_nothing_else(house: House) -> None:
    heard: list[str] = []
    house.records.on_change = heard.append
    house.ingest(tensors(1))
    house.ingest(tensors(1))
    assert heard == [house.job.id]


@pytest.mark.parametrize("ratios", [[], [0.1, 1.0], [0.1, 1.0, 0.2, 0.3]])
def test_a_step_with_another_number_of_ratios_than_tensors_is_refused_by_its_number(
    house: House, ratios: list[float]
) -> None:
    house.ingest(tensors(1))
    with pytest.raises(RecordError, match="has 3 tensors") as caught:
        house.ingest(step(2, 1, ratios=ratios))
    assert (caught.value.seq, caught.value.status) == (2, 422)
    assert house.stored()[1:] == []


def test_a_set_stands_for_the_same_tensors_for_good(house: House) -> None:
    house.ingest(tensors(1), tensors(2))
    with pytest.raises(RecordError, match="already names other tensors"):
        house.ingest(tensors(3) | {"names": ["a", "b", "c"]})


def test_records_of_older_versions_are_taken_as_they_were_meant(house: House) -> None:
    older = {"trust_ratio": [0.5, 1.0, 0.25], "set": None, "weight_norm": None, "update_norm": None}
    skipped = older | {"skipped": True, "trust_ratio": [1.0, 1.0, 1.0]}
    first = tensors(1)
    del first["set"]
    house.ingest(first, step(2, 1) | older, step(3, 2) | skipped)
    _, one, two = house.stored()
    assert (unpacked(one["trust_ratio"]), one["set"]) == ([0.5, 1.0, 0.25], tensors(1)["set"])
    assert (two["skipped"], two["trust_ratio"]) == (True, None)


def test_records_and_what_they_imply_for_the_job_are_one_transaction(house: House) -> None:
    with pytest.raises(RecordError, match="record 3"):
        house.ingest(tensors(1), step(2, 1), step(3, 2, ratios=[0.5]))
    assert house.now().step == 0
    assert house.stored() == []
    assert house.ingest() == 0


def push(house: House, *documents: dict[str, Any], attempt: int | None = None) -> tuple[int, Command]:
    reply = house.records.take(house.job.id, Push(records=read(*documents), attempt=attempt))
    return reply.acknowledged, reply.command


def test_the_reply_carries_the_command_and_a_cancelled_job_stays_told_to_stop(house: House) -> None:
    assert push(house, status(1, "RUNNING")) == (1, Command.NONE)
    house.store.change(house.job.id, lambda job: cancel(job, job.created_at))
    assert push(house) == (1, Command.STOP)
    assert push(house, status(2, "CANCELLED")) == (2, Command.STOP)


def log(seq: int) -> dict[str, Any]:
    return {"seq": seq, "kind": "log", "time": "2026-01-31T12:00:00Z", "text": "hello"}


def test_nothing_of_an_older_attempt_is_stored_whether_or_not_the_push_says_its_attempt(house: House) -> None:
    push(house, status(1, "RUNNING", attempt=1), attempt=1)
    house.store.change(house.job.id, lambda job: replace(job, attempt=2))
    late = [step(2, 1, attempt=1), log(3)]
    assert push(house, *late, attempt=1) == (1, Command.STOP)
    assert push(house, *late) == (1, Command.STOP), "of an older version"
    assert push(house, log(2)) == (1, Command.NONE), "it may be of either attempt: it waits until that is known"
    assert push(house) == (1, Command.NONE)
    assert push(house, log(2), status(3, "RUNNING", attempt=2)) == (3, Command.NONE)
    assert push(house, log(4), attempt=2) == (4, Command.NONE)
    assert house.ingest(log(5)) == 5, "what stands in the journal is of the newest attempt"


def test_what_is_read_says_when_there_is_more(house: House) -> None:
    house.ingest(*run_records(5))
    first = house.records.read_after(house.job.id, 0, 3)
    assert ([record["seq"] for record in first.records], first.is_all) == ([1, 2, 3], False)
    assert house.records.read_after(house.job.id, 6, 3).is_all


def test_a_reader_that_stops_early_does_not_keep_the_write_ahead_log_from_being_reset(house: House) -> None:
    house.ingest(*run_records(50))
    first = house.records.read_after(house.job.id, 0, 40, 1)
    assert (len(first.records), first.is_all) == (1, False)
    with closing(sqlite3.connect(house.path, timeout=0)) as other:
        [(is_busy, left, _)] = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert (is_busy, left) == (0, 0)
    assert house.path.with_name(f"{house.path.name}-wal").stat().st_size == 0


def begin(served: Served) -> tuple[str, Writer]:
    writer, job_id = Writer(), str(served.submit()["id"])
    served.push(job_id, [*writer.begin(), writer.step(1), writer.checkpoint(1), writer.step(2), writer.alert("high")])
    return job_id, writer


def test_records_of_the_kinds_asked_for_come_in_order(served: Served) -> None:
    job_id, _ = begin(served)
    found = served.http.get(f"/v1/jobs/{job_id}/records?kind=alert&kind=checkpoint").json()
    assert [record["kind"] for record in found["records"]] == ["checkpoint", "alert"]


def test_the_last_number_counts_every_kind(served: Served) -> None:
    job_id, writer = begin(served)
    served.push(job_id, [writer.step(3)])
    assert served.http.get(f"/v1/jobs/{job_id}/records?kind=alert").json()["last_seq"] == 7


def test_the_limit_keeps_the_newest(served: Served) -> None:
    job_id, _ = begin(served)
    found = served.http.get(f"/v1/jobs/{job_id}/records?limit=1").json()
    assert [record["kind"] for record in found["records"]] == ["alert"]


def test_a_job_without_records_has_none(served: Served) -> None:
    job_id = served.submit()["id"]
    assert served.http.get(f"/v1/jobs/{job_id}/records").json() == {"records": [], "last_seq": 0}


def test_steps_are_refused_because_the_histories_have_them(served: Served) -> None:
    job_id, _ = begin(served)
    assert served.http.get(f"/v1/jobs/{job_id}/records?kind=step").status_code == 422


def test_an_evaluation_that_is_made_again_takes_the_place_of_the_first_and_the_job_knows_the_newest(
    house: House,
) -> None:
    writer = Writer()
    house.ingest(*writer.begin(), *writer.steps(1, 4), writer.evaluation(2), writer.evaluation(4, mlm_loss=5.0))
    house.ingest(writer.evaluation(4, mlm_loss=4.0), writer.evaluation(4, mlm_loss=3.0))
    found = [(record["step"], record["mlm_loss"]) for record in house.stored() if record["kind"] == "evaluation"]
    assert found == [(2, 6.5), (4, 3.0)]
    newest = house.now().evaluation
    assert newest is not None
    assert (newest.step, newest.mlm_loss, newest.nsp_accuracy) == (4, 3.0, 0.5)
    assert [record["step"] for record in house.stored() if record["kind"] == "step"] == [1, 2, 3, 4]
