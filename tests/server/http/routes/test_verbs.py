from tests.serving import Served, run_records


def test_a_waiting_job_is_cancelled_at_once_and_an_ended_one_cannot_be(served: Served) -> None:
    waiting, ended = served.submit()["id"], served.submit()["id"]
    assert served.http.post(f"/v1/jobs/{waiting}/cancel").json()["status"] == "CANCELLED"
    assert served.http.post(f"/v1/jobs/{waiting}/cancel").status_code == 200
    served.push(ended, run_records(3))
    answer = served.http.post(f"/v1/jobs/{ended}/cancel")
    assert answer.status_code == 409
    assert "is SUCCEEDED" in answer.json()["detail"]


def test_a_running_job_hears_in_its_next_push_that_it_shall_stop(served: Served) -> None:
    job_id = served.submit()["id"]
    records = run_records(3)
    assert served.push(job_id, records[:3]) == {"acknowledged": 3, "command": "none"}
    assert served.http.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "STOPPING"
    assert served.push(job_id, []) == {"acknowledged": 3, "command": "stop"}
