import yaml

from tests.serving import TINY, Served

SWEEP = {"job": TINY, "grid": {"seed": [1, 2, 3]}}
YAML = {"Content-Type": "application/yaml"}


def test_the_jobs_of_a_sweep_are_submitted_together_and_belong_together(served: Served) -> None:
    other = served.submit()
    answer = served.http.post("/v1/sweeps", content=yaml.safe_dump(SWEEP), headers=YAML)
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["Location"] == f"/v1/sweeps/{made['id']}"
    assert [(job["name"], job["spec"]["seed"], job["sweep"]) for job in made["jobs"]] == [
        (f"tiny-{seed}", seed, made["id"]) for seed in (1, 2, 3)
    ]
    assert other["sweep"] is None
    served.http.post(f"/v1/jobs/{made['jobs'][1]['id']}/cancel")
    listed = served.http.get(f"/v1/sweeps/{made['id']}").json()["jobs"]
    assert [job["id"] for job in listed] == [job["id"] for job in made["jobs"]]
    assert served.http.get("/v1/sweeps").json()["sweeps"] == [
        {"id": made["id"], "jobs": 3, "statuses": {"CANCELLED": 1, "QUEUED": 2}}
    ]


def test_a_repeat_with_the_same_key_submits_only_what_is_missing(served: Served) -> None:
    key = {"Idempotency-Key": "once"}
    first = served.http.post("/v1/sweeps", json=SWEEP, headers=key).json()
    missing = first["jobs"][2]["id"]
    served.http.post(f"/v1/jobs/{missing}/cancel").raise_for_status()
    served.http.delete(f"/v1/jobs/{missing}").raise_for_status()
    again = served.http.post("/v1/sweeps", json=SWEEP, headers=key).json()
    assert (again["id"], len(again["jobs"])) == (first["id"], 3)
    assert [job["id"] for job in again["jobs"][:2]] == [job["id"] for job in first["jobs"][:2]]
    assert len(served.http.get("/v1/jobs").json()["jobs"]) == 3
    assert served.http.post("/v1/sweeps", json=SWEEP | {"grid": {"seed": [9]}}, headers=key).status_code == 409


def test_of_a_sweep_with_one_bad_variant_nothing_is_stored(served: Served) -> None:
    refused = served.http.post("/v1/sweeps", json={"job": TINY, "grid": {"seed": [1, 2, -3]}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "seed"
    assert served.http.get("/v1/jobs").json()["jobs"] == []


def test_an_unknown_sweep_is_not_found(served: Served) -> None:
    answer = served.http.get("/v1/sweeps/1qx92r16q7na")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:bigbatch:problem:sweep-not-found")
