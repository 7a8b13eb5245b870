"""The last records of some kinds, as the dashboard lists them."""

from tests.server.writer import Writer
from tests.serving import Served


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
