import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from server.client.events import Event, parse_events
from server.http import bell
from server.http.routes import events as events_route
from server.jobs.job import Job
from tests.serving import Served, run_records, serving, status, step, tensors, unpacked


@contextmanager
def _watch(served: Served, path: str, **headers: str) -> Iterator[Iterator[Event]]:
    with served.http.stream("GET", path, headers=headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield parse_events(answer.iter_text())


def _all(served: Served, job_id: str, **headers: str) -> list[Event]:
    with _watch(served, f"/v1/jobs/{job_id}/events", **headers) as events:
        return list(events)


def test_a_finished_job_is_replayed_to_its_end(served: Served) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, run_records(5))
    events = _all(served, job_id)
    assert [event.id for event in events] == [*range(1, 9), None]
    assert [event.name for event in events] == ["status", "tensors", *["step"] * 5, "status", "end"]
    assert unpacked(events[2].data["trust_ratio"]) == [0.1, 1.0, None]
    assert events[2].data["set"] == events[1].data["set"]
    assert events[-1].data == {"status": "SUCCEEDED"}


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_stream_goes_on_behind_the_last_event_seen(served: Served, how: str) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, run_records(5))
    if how == "header":
        events = _all(served, job_id, **{"Last-Event-ID": "5"})
    else:
        with _watch(served, f"/v1/jobs/{job_id}/events?after=5") as stream:
            events = list(stream)
    assert [event.id for event in events] == [6, 7, 8, None]


def test_records_arrive_live_and_in_order_while_they_are_pushed(served: Served) -> None:
    job_id = served.submit()["id"]
    records = run_records(30)
    with _watch(served, f"/v1/jobs/{job_id}/events") as events:
        assert next(events) == Event("status", None, _status_data(served, job_id))
        pusher = threading.Thread(target=lambda: [served.push(job_id, records[: n + 1]) for n in range(len(records))])
        pusher.start()
        seen = list(events)
        pusher.join()
    assert [event.id for event in seen if event.id] == list(range(1, 34))
    assert seen[-1].name == "end"


def _status_data(served: Served, job_id: str) -> dict[str, Any]:
    job = served.job(job_id)
    names = ["status", "attempt", "world_size", "error", "unigram_entropy_nats", "step", "started_at", "finished_at"]
    names += ["queue_reason", "unreachable_since"]
    return {"kind": "status"} | {name: job[name] for name in names}


def test_a_change_that_no_record_tells_is_told_without_a_number(served: Served) -> None:
    job_id = served.submit()["id"]
    with _watch(served, f"/v1/jobs/{job_id}/events") as events:
        assert next(events).data["status"] == "QUEUED"
        served.http.post(f"/v1/jobs/{job_id}/cancel")
        cancelled, end = list(events)
    assert (cancelled.name, cancelled.id, cancelled.data["status"]) == ("status", None, "CANCELLED")
    assert end.name == "end"


def test_what_a_job_waits_for_is_told_as_soon_as_it_changes(served: Served) -> None:
    job_id = served.submit()["id"]
    store = served.parts.store
    served.parts.scheduler.stop()
    with _watch(served, f"/v1/jobs/{job_id}/events") as events:
        assert next(events).data["queue_reason"] is None
        store.change(job_id, lambda job: job.wait_because("two processors are missing"))
        assert next(events).data["queue_reason"] == "two processors are missing"
        served.push(job_id, [status(1, "RUNNING")])
        records = [next(events), next(events)]
        assert [each.data["status"] for each in records] == ["RUNNING", "RUNNING"]
        assert records[1].data["queue_reason"] is None
        store.change(job_id, lambda job: job.unreachable(datetime(2026, 1, 2, tzinfo=UTC)))
        silent = next(events)
        assert (silent.id, silent.data["unreachable_since"]) == (None, "2026-01-02T00:00:00+00:00")
        store.change(job_id, Job.reached)
        assert next(events).data["unreachable_since"] is None


def test_a_long_history_arrives_whole(served: Served) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, run_records(1200))
    assert [event.id for event in _all(served, job_id)] == [*range(1, 1204), None]


def test_a_step_that_is_taken_again_arrives_again_with_a_new_number(served: Served) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, [status(1, "RUNNING"), tensors(2), step(3, 1), step(4, 2)])
    with _watch(served, f"/v1/jobs/{job_id}/events") as events:
        assert [next(events).id for _ in range(4)] == [1, 2, 3, 4]
        served.push(job_id, [step(5, 2, loss=3.0), status(6, "SUCCEEDED")])
        again = next(events)
    assert (again.id, again.data["step"], again.data["loss"]) == (5, 2, 3.0)


def test_streams_end_when_the_server_stops_and_go_on_with_the_next_one(tmp_path: Any) -> None:
    with serving(tmp_path) as first:
        job_id = first.submit()["id"]
        first.push(job_id, run_records(3)[:4])
        answer = first.http.stream("GET", f"/v1/jobs/{job_id}/events")
        stream = answer.__enter__()
        events = parse_events(stream.iter_text())
        assert [next(events).id for _ in range(4)] == [1, 2, 3, 4]
        first.parts.bell.close()
        assert list(events) == []
        answer.__exit__(None, None, None)
    with serving(tmp_path) as second:
        second.push(job_id, run_records(3)[4:])
        assert [event.id for event in _all(second, job_id, **{"Last-Event-ID": "4"})] == [5, 6, None]


def test_a_silent_stream_shows_that_it_is_alive(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_route, "_KEEP_ALIVE_S", 0.05)
    with served.http.stream("GET", "/v1/events") as answer:
        lines = answer.iter_lines()
        assert [line for _ in range(6) if (line := next(lines))] == [": ping"] * 3


def test_the_stream_of_all_jobs_shows_those_that_change(served: Served) -> None:
    with _watch(served, "/v1/events") as events:
        job_id = served.submit()["id"]
        event = next(events)
        assert (event.name, event.id, event.data["id"], event.data["status"]) == ("job", None, job_id, "QUEUED")
        served.push(job_id, run_records(3))
        while event.data["status"] != "SUCCEEDED":
            event = next(events)
        assert event.data["step"] == 3


def test_pushes_may_repeat_and_overlap(served: Served) -> None:
    job_id = served.submit()["id"]
    records = run_records(5)
    assert served.push(job_id, records[:4])["acknowledged"] == 4
    assert served.push(job_id, records[2:6])["acknowledged"] == 6
    assert served.push(job_id, records[7:])["acknowledged"] == 6
    assert served.push(job_id, records)["acknowledged"] == 8
    assert served.job(job_id)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    "body",
    ["", "[" * 100_000, "[]", '{"records": [{"kind": "step"}]}', '{"records": 5}', '{"records": [{}]}'],
    ids=["empty", "nested", "list", "step", "number", "record"],
)
def test_what_is_not_a_push_is_refused_field_by_field(served: Served, body: str) -> None:
    job_id = served.submit()["id"]
    control = json.loads((served.settings.run_folder(job_id) / "control.json").read_text())
    headers = {"Authorization": f"Bearer {control['token']}"}
    answer = httpx.post(control["url"], content=body, headers=headers, trust_env=False)
    assert answer.status_code == 422
    assert answer.json()["errors"]


def _push(served: Served, job_id: str, **body: Any) -> httpx.Response:
    control = json.loads((served.settings.run_folder(job_id) / "control.json").read_text())
    headers = {"Authorization": f"Bearer {control['token']}"}
    return httpx.post(control["url"], json=body, headers=headers, trust_env=False)


def test_what_a_newer_worker_has_added_to_a_record_is_passed_over(served: Served) -> None:
    job_id = served.submit()["id"]
    records = [record | {"added": "later"} for record in run_records(5)]
    assert _push(served, job_id, records=records, attempt=1, host="node-1").json()["acknowledged"] == len(records)
    assert served.job(job_id)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": "high"}, "is not a number; write a number"),
        ({"kind": "poem"}, "poem is not one of the values of 'kind'; write one of 'status', 'tensors', 'step'"),
        ({"step": 10**30}, "is more than 9007199254740991; write a value of at most 9007199254740991"),
        ({"time": "9999-12-31T23:59:59-12:00"}, "is outside the years 1 to 9998 in UTC; write a time such as"),
        ({"time": "2026-01-31T12:00:00"}, "has no time zone; write a time such as 2026-01-31T12:00:00Z"),
        ({"trust_ratio": "AAA="}, "has 2 bytes, and a float32 has four; send four bytes for each tensor"),
        ({"skipped": True, "weight_norm": None}, "was skipped, but has trust_ratio and update_norm; send null"),
    ],
)
def test_a_push_with_one_record_that_cannot_be_read_is_refused_and_the_answer_has_its_number(
    served: Served, change: dict[str, Any], says: str
) -> None:
    job_id = served.submit()["id"]
    records = run_records(5)
    records[3] |= change
    answer = _push(served, job_id, records=records)
    assert (answer.status_code, answer.json()["seq"]) == (422, 4)
    assert answer.json()["detail"].startswith(f"record 4: {says}")
    assert served.push(job_id, records[:3])["acknowledged"] == 3


def test_nothing_of_an_attempt_is_stored_once_a_newer_one_has_begun_and_it_is_told_to_stop(served: Served) -> None:
    job_id = served.submit()["id"]
    assert _push(served, job_id, attempt=2, records=[status(1, "RUNNING", attempt=2)]).json()["acknowledged"] == 1
    old = _push(served, job_id, attempt=1, records=[status(2, "FAILED", attempt=1)]).json()
    assert (old["acknowledged"], old["command"]) == (1, "stop")
    assert (served.job(job_id)["status"], served.job(job_id)["attempt"]) == ("RUNNING", 2)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"lr": "0.1"}, "records[3].lr"), ({"skipped": "no"}, "records[3].skipped"), ({"seq": "4"}, "records[3].seq")],
)
def test_text_is_not_taken_for_a_number_or_a_switch_and_the_field_is_named_as_the_push_has_it(
    served: Served, change: dict[str, Any], field: str
) -> None:
    job_id = served.submit()["id"]
    records = run_records(5)
    records[3] |= change
    answer = _push(served, job_id, records=records)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert served.push(job_id, [])["acknowledged"] == 0


def test_an_attempt_in_text_is_refused(served: Served) -> None:
    answer = _push(served, served.submit()["id"], attempt="1", records=[])
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "attempt")


def test_long_records_arrive_whole_and_in_order_over_many_pages(served: Served) -> None:
    job_id = served.submit()["id"]
    lines = [str(number) + "x" * 100_000 for number in range(2, 20)]
    served.push(job_id, [status(1, "RUNNING")])
    for number, line in enumerate(lines, start=2):
        when = {"seq": number, "time": "2026-01-31T12:00:00Z"}
        served.push(job_id, [{"kind": "log", "text": line} | when])
    served.push(job_id, [status(20, "SUCCEEDED")])
    events = _all(served, job_id)
    assert [event.data["text"] for event in events if event.name == "log"] == lines
    assert events[-1].name == "end"


def test_one_stream_more_than_a_server_can_have_is_refused_until_one_ends(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "MOST_STREAMS", 1)
    job_id = served.submit()["id"]
    with _watch(served, f"/v1/jobs/{job_id}/events") as events:
        next(events)
        for path in ("/v1/events", f"/v1/jobs/{job_id}/events"):
            answer = served.http.get(path)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
            assert "1 streams are open" in answer.json()["detail"]
        served.push(job_id, run_records(1))
        list(events)
    assert _all(served, job_id)[-1].name == "end"


def test_a_stream_whose_reader_has_gone_away_ends_without_an_event(served: Served) -> None:
    job_id = served.submit()["id"]
    for path in ("/v1/events", f"/v1/jobs/{job_id}/events"):
        with served.http.stream("GET", path) as answer:
            raw = answer.iter_raw()  # once nothing refers to it, the connection is closed
            next(raw)
            assert served.parts.bell.streams == 1
        deadline = time.monotonic() + 30
        while served.parts.bell.streams:
            assert time.monotonic() < deadline
            time.sleep(0.01)
