import pytest

from tests.serving import Served, run_records


def test_jobs_are_listed_page_by_page(served: Served) -> None:
    ids = [served.submit()["id"] for _ in range(5)]
    first = served.http.get("/v1/jobs", params={"limit": 3}).json()
    second = served.http.get("/v1/jobs", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [job["id"] for job in first["jobs"] + second["jobs"]] == sorted(ids, reverse=True)
    assert second["next_cursor"] is None


def test_the_list_can_be_narrowed_by_status_and_label(served: Served) -> None:
    blue = served.submit(labels={"team": "blue"})["id"]
    red = served.submit(labels={"team": "red"})["id"]
    served.http.post(f"/v1/jobs/{red}/cancel")
    for query, found in (({"label": "team=blue"}, blue), ({"status": "CANCELLED"}, red)):
        assert [job["id"] for job in served.http.get("/v1/jobs", params=query).json()["jobs"]] == [found]
    assert len(served.http.get("/v1/jobs?status=CANCELLED&status=QUEUED").json()["jobs"]) == 2


@pytest.mark.parametrize("query", ["limit=0", "limit=many", "status=LOST", "limit=100000"])
def test_a_bad_parameter_is_named(served: Served, query: str) -> None:
    answer = served.http.get(f"/v1/jobs?{query}")
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"].startswith(f"query.{query.partition('=')[0]}")
    assert "Input should" not in error["problem"] + error["remedy"]


@pytest.mark.parametrize("path", ["/v1/jobs/nope", "/v1/nope", "/v1/jobs/nope/metrics", "/v1/jobs/nope/events"])
def test_what_is_not_there_is_not_found(served: Served, path: str) -> None:
    answer = served.http.get(path)
    assert (answer.status_code, answer.json()["status"]) == (404, 404)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_wrong_method_is_refused_with_those_that_there_are(served: Served) -> None:
    answer = served.http.delete("/v1/jobs")
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"] or "POST" in answer.headers["Allow"]


def test_the_list_is_sorted_and_goes_on_behind_its_cursor(served: Served) -> None:
    for name in ("b", "a", "c", "a"):
        served.submit(name=name)
    first = served.http.get("/v1/jobs?sort=name&limit=2").json()
    rest = served.http.get("/v1/jobs", params={"sort": "name", "cursor": first["next_cursor"]}).json()
    assert [job["name"] for job in first["jobs"] + rest["jobs"]] == ["a", "a", "b", "c"]
    other = served.http.get("/v1/jobs", params={"sort": "-name", "cursor": first["next_cursor"]})
    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "query.cursor")


def test_priority_and_labels_can_be_changed(served: Served) -> None:
    job = served.submit(priority=3, labels={"team": "nlp", "old": "1"})
    assert (job["priority"], job["owner"]) == (3, "admin")
    path = f"/v1/jobs/{job['id']}"
    changed = served.http.patch(path, json={"priority": -4, "labels": {"old": None, "new": "2"}}).json()
    assert (changed["priority"], changed["labels"]) == (-4, {"team": "nlp", "new": "2"})
    for wrong, field in (({"priority": 1001}, "priority"), ({"priority": "1"}, "priority"), ({"name": "x"}, "name")):
        refused = served.http.patch(path, json=wrong)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
    served.push(job["id"], run_records(3)[:3])
    assert served.http.patch(path, json={"priority": 9}).status_code == 409
    assert served.http.patch(path, json={"labels": {"late": "yes"}}).json()["labels"]["late"] == "yes"


def test_a_deleted_job_leaves_nothing_behind_and_one_that_may_run_is_not_deleted(served: Served) -> None:
    kept, gone = served.submit()["id"], served.submit()["id"]
    served.push(gone, run_records(3))
    refused = served.http.delete(f"/v1/jobs/{kept}")
    assert refused.status_code == 409
    assert "cancel it, and delete it once it has ended" in refused.json()["detail"]
    assert served.http.delete(f"/v1/jobs/{gone}").json()["status"] == "SUCCEEDED"
    assert served.http.get(f"/v1/jobs/{gone}").status_code == 404
    assert served.http.delete(f"/v1/jobs/{gone}").status_code == 404
    assert served.http.get(f"/v1/jobs/{gone}/metrics").status_code == 404
    assert [job["id"] for job in served.http.get("/v1/jobs").json()["jobs"]] == [kept]
    assert not served.settings.run_folder(gone).exists()
    assert served.settings.run_folder(kept).exists()


def test_who_watches_hears_that_a_job_is_deleted(served: Served) -> None:
    job_id = served.submit()["id"]
    served.http.post(f"/v1/jobs/{job_id}/pause")
    with served.http.stream("GET", "/v1/events") as overview, served.http.stream("GET", _events(job_id)) as own:
        all_jobs, of_job = overview.iter_lines(), own.iter_lines()
        assert next(line for line in of_job if line.startswith("data")).count("PAUSED") == 1
        assert next(all_jobs)
        served.http.delete(f"/v1/jobs/{job_id}")
        assert list(of_job)[-3:] == ["event: end", 'data: {"status":null}', ""]
        assert "event: deleted" in iter(all_jobs)
        assert next(all_jobs) == f'data: {{"id":"{job_id}"}}'


def _events(job_id: str) -> str:
    return f"/v1/jobs/{job_id}/events"
