import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.jobs.status import TextState
from tests.serving import TINY, Idle, Served, serving
from workers.contract.documents import read_spec
from workers.contract.push import ControlPlane
from workers.corpus.prepare import prepare
from workers.planning.text import SMALL_BYTES

YAML = {"Content-Type": "application/yaml"}
JSON = {"Content-Type": "application/json"}


def test_a_job_is_submitted_as_json_and_as_yaml(served: Served) -> None:
    as_json = served.http.post("/v1/jobs", json=TINY)
    as_yaml = served.http.post("/v1/jobs", content=yaml.safe_dump(TINY), headers=YAML)
    assert (as_json.status_code, as_yaml.status_code) == (201, 201)
    assert as_json.json()["spec"] == as_yaml.json()["spec"]
    assert as_json.headers["Location"] == f"/v1/jobs/{as_json.json()['id']}"
    assert as_json.json()["status"] == "QUEUED"


def test_a_repeated_key_returns_the_same_job_in_either_format(served: Served) -> None:
    key = {"Idempotency-Key": "once"}
    first = served.http.post("/v1/jobs", json=TINY, headers=key)
    again = served.http.post("/v1/jobs", content=yaml.safe_dump(TINY), headers=YAML | key)
    other = served.http.post("/v1/jobs", json=TINY | {"seed": 5}, headers=key)
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert again.json()["id"] == first.json()["id"]
    assert first.json()["id"] in other.json()["detail"]
    assert len(served.http.get("/v1/jobs").json()["jobs"]) == 1


def test_the_run_folder_holds_the_specification_and_a_private_token(served: Served) -> None:
    folder = served.settings.run_folder(served.submit()["id"])
    assert read_spec((folder / "spec.yaml").read_text()).name == "tiny"
    control = ControlPlane.model_validate_json((folder / "control.json").read_text())
    assert control.url == f"{served.url}/v1/jobs/{folder.name}/events"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "control.json")] == [0o700, 0o600]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"learning_rate": 1}, "learning_rate"),
        ({"phases": [TINY["phases"][0] | {"steps": "many"}]}, "phases[0].steps"),
        ({"data": {"corpus": ["/no/such/file.txt"]}}, "data.corpus[0]"),
        ({"data": {"corpus": ["relative.txt"]}}, "data.corpus[0]"),
    ],
)
def test_a_bad_field_is_named_with_its_value_and_a_remedy(served: Served, changes: dict[str, Any], field: str) -> None:
    answer = served.http.post("/v1/jobs", json=TINY | changes)
    assert answer.status_code == 422
    assert [set(each) for each in answer.json()["errors"]] == [{"field", "value", "problem", "remedy"}]
    assert answer.json()["errors"][0]["field"] == field


def test_a_job_that_no_known_cluster_can_hold_is_refused_and_one_that_may_wait_is_queued(tmp_path: Path) -> None:
    phase = TINY["phases"][0] | {"global_batch_size": 400}
    huge = TINY | {"phases": [phase], "parallel": {"workers": 100}}
    with serving(tmp_path / "unknown") as served:
        assert served.http.post("/v1/jobs", json=huge).json()["status"] == "QUEUED"
    with serving(tmp_path / "known", Idle()) as served:
        served.parts.scheduler.turn()
        refused = served.http.post("/v1/jobs", json=huge)
        assert refused.status_code == 422
        assert refused.json()["errors"][0] == {
            "field": "parallel.workers",
            "value": "100",
            "problem": "100 workers would need 100 CPUs, and the whole cluster has 2 CPUs",
            "remedy": "lower parallel.workers, parallel.cpus_per_worker or parallel.gpus_per_worker, or add machines",
        }
        assert served.http.get("/v1/jobs").json()["jobs"] == []
        assert served.http.post("/v1/jobs", json=TINY | {"parallel": {"workers": 2}}).status_code == 201


def test_what_may_surprise_is_told_with_the_answer(served: Served, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("It is a truth universally acknowledged.\n")
    short = TINY | {"data": {"corpus": [str(tmp_path / "short.txt")], "vocab": 100}}
    (warning,) = served.http.post("/v1/jobs", json=short).json()["warnings"]
    assert warning["field"] == "phases[0].global_batch_size"
    assert "512 tokens, the corpus has 40 bytes" in warning["problem"]
    assert served.http.post("/v1/jobs", json=TINY).json()["warnings"] == []


@pytest.mark.parametrize("name", ["n" * 300, "folder"])
def test_a_corpus_that_cannot_be_read_is_named(served: Served, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    answer = served.http.post("/v1/jobs", json=TINY | {"data": {"corpus": [str(tmp_path / name)]}})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "data.corpus[0]"


@pytest.mark.parametrize(("text", "status"), [("\\ud800", 422), ("\\u0000", 422), ("\\u2028", 201)])
def test_odd_characters_in_a_label_do_no_harm(served: Served, text: str, status: int) -> None:
    body = json.dumps(TINY)[:-1] + f', "labels": {{"odd": "{text}"}}}}'
    answer = served.http.post("/v1/jobs", content=body, headers=JSON)
    assert answer.status_code == status
    assert served.http.get("/v1/jobs?label=odd").status_code == 200


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_file_outside_the_roots_of_the_server_is_refused_with_field_and_remedy(
    tmp_path: Path, *, dry_run: bool
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("It is a truth.\n")
    (tmp_path / "b.txt").write_text("It is a truth.\n")
    with serving(tmp_path / "home", data_roots=(tmp_path / "texts",)) as served:

        def submit(name: str) -> httpx.Response:
            data = TINY["data"] | {"corpus": [f"{tmp_path}/{name}"]}
            return served.http.post("/v1/jobs", params={"dry_run": dry_run}, json=TINY | {"data": data})

        assert submit("texts/a.txt").is_success
        answer = submit("b.txt")
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["field"], error["problem"]) == ("data.corpus[0]", "lies outside the folders that jobs may read here")
    assert f"copy it below {tmp_path}/texts" in error["remedy"]


def test_a_job_and_its_clone_belong_to_those_whose_tokens_submitted_them(served: Served) -> None:
    job = served.submit()
    token = served.http.post("/v1/tokens", json={"owner": "ann", "role": "operator"}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    clone = served.http.post(f"/v1/jobs/{job['id']}/clone", json={}, headers=headers).json()
    assert (job["owner"], clone["owner"]) == ("admin", "ann")
    assert [each["id"] for each in served.http.get("/v1/jobs?owner=ann").json()["jobs"]] == [clone["id"]]


def test_what_is_little_is_left_to_the_workers_and_what_was_prepared_for_a_job_is_not_prepared_again(
    served: Served, tmp_path: Path
) -> None:
    much = tmp_path / "much.txt"
    much.write_bytes(b"Tea is hot. Milk is cold.\n\n" * (SMALL_BYTES // 27 + 1))
    data = {"corpus": [str(much)], "vocab": 60}

    def state(**changes: Any) -> str:
        return str(served.submit(data=data | changes)["text_state"])

    assert served.submit()["text_state"] == "ready"
    first = served.submit(data=data)
    assert (first["text_state"], state()) == ("unprepared", "unprepared")
    prepare(read_spec((served.settings.run_folder(first["id"]) / "spec.yaml").read_text()).data, served.settings.data)
    assert state() == "unprepared", "of this text, sizes and settings alone are known"
    served.parts.store.change(first["id"], lambda job: replace(job, text_state=TextState.READY))
    assert (state(), state(mask_probability=0.3), state(vocab=70)) == ("ready", "ready", "unprepared")
    much.write_bytes(much.read_bytes().replace(b"cold", b"warm"))
    assert state() == "unprepared"


def test_text_that_the_server_does_not_see_is_prepared_where_it_is_seen(served: Served) -> None:
    job = served.submit(data={"corpus": ["https://text.example/a.txt"], "vocab": 60})
    assert job["text_state"] == "unprepared"
