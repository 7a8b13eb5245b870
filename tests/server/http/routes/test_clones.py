"""Clones of a job, and branches from its checkpoints, over HTTP. The runs are folders as runs leave them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import TINY, Served, serving
from workers.contract.manifests import CheckpointManifest, Parent, StoredFile
from workers.contract.run.folder import CheckpointName, RunFolder

PHASE = TINY["phases"][0]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all these tests, of which each has a job of its own."""
    with serving(tmp_path_factory.mktemp("clones") / "home") as server:
        yield server


def runs(served: Served) -> set[str]:
    return {path.name for path in served.settings.run_folder("x").parent.iterdir()}


def folder_of(served: Served, job: dict[str, Any]) -> RunFolder:
    return RunFolder(served.settings.run_folder(job["id"]))


def put_checkpoint(folder: RunFolder, step: int, attempt: int = 1) -> None:
    name, content = CheckpointName(step, attempt), f"weights of step {step}".encode()
    folder.store.put(f"{name.prefix}/__0_0.distcp", content)
    manifest = CheckpointManifest(
        step=step, attempt=attempt, world_size=1, files={"__0_0.distcp": StoredFile(size_bytes=len(content))}
    )
    folder.store.put(name.manifest, manifest.model_dump_json().encode())


@pytest.fixture
def job(served: Served) -> dict[str, Any]:
    """A job of two phases, of which checkpoints of steps 2 and 4 are left."""
    submitted = served.submit(phases=[PHASE | {"steps": 5}, PHASE | {"seq_len": 32, "steps": 3}])
    for step in (2, 4):
        put_checkpoint(folder_of(served, submitted), step)
    return submitted


def clone(served: Served, job: dict[str, Any], key: str | None = None, **body: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return served.http.post(f"/v1/jobs/{job['id']}/clone", json=body, headers=headers)


def test_a_clone_begins_as_the_job_began_with_what_was_set(served: Served, job: dict[str, Any]) -> None:
    answer = clone(served, job, set={"seed": 7, "phases[0].lr": 3e-3, "labels.why": "try"})
    assert answer.status_code == 201
    copy = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{copy['id']}"
    assert (copy["parent"], copy["parent_step"], copy["step"], copy["status"]) == (job["id"], None, 0, "QUEUED")
    phases = [job["spec"]["phases"][0] | {"lr": 3e-3}, job["spec"]["phases"][1]]
    assert copy["spec"] == job["spec"] | {"seed": 7, "phases": phases, "labels": {"why": "try"}}
    assert folder_of(served, copy).checkpoints() == []


def test_a_branch_has_the_checkpoint_when_it_is_answered_and_keeps_it_when_the_parent_is_deleted(
    served: Served, job: dict[str, Any]
) -> None:
    answer = clone(served, job, from_step=4, set={"phases[1].lr": 3.0e-3})
    assert answer.status_code == 201, answer.text
    branch, folder = answer.json(), folder_of(served, answer.json())
    shutil.rmtree(folder_of(served, job).path)
    assert folder.finished() == [CheckpointName(4, 0)]
    assert folder.store.read(f"{CheckpointName(4, 0).prefix}/__0_0.distcp") == b"weights of step 4"
    assert folder.manifest().parent == Parent(run=job["id"], step=4)
    assert (branch["parent"], branch["parent_step"], branch["step"]) == (job["id"], 4, 4)
    assert branch["spec"]["phases"][1]["lr"] == 3e-3
    assert branch["spec"]["start_from"] == {"run": job["id"], "step": 4}
    assert folder.spec().start_from is not None
    assert served.job(branch["id"])["parent"] == job["id"]


def test_a_step_that_is_gone_is_an_error_that_names_those_that_are_there(served: Served, job: dict[str, Any]) -> None:
    before = runs(served)
    answer = clone(served, job, from_step=3)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["field"], error["value"]) == ("start_from.step", "3")
    assert error["remedy"] == "name a step that it has: 2, 4"
    assert runs(served) == before
    assert served.http.get("/v1/jobs").json()["jobs"][0]["id"] == job["id"]  # the newest one


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", 7), ("model.dropout", 0.2), ("data.mask_probability", 0.2), ("phases[0].seq_len", 32)],
)
def test_what_cannot_be_set_in_a_branch_is_refused_by_name(
    served: Served, job: dict[str, Any], field: str, value: Any
) -> None:
    answer = clone(served, job, from_step=4, set={field: value})
    assert answer.status_code == 422
    assert [(error["field"], error["value"]) for error in answer.json()["errors"]] == [(field, repr(value))]


def test_a_repeated_key_makes_one_branch_even_when_the_checkpoint_is_gone_by_then(
    served: Served, job: dict[str, Any]
) -> None:
    before = runs(served)
    first = clone(served, job, "once", from_step=4)
    shutil.rmtree(folder_of(served, job).path)
    again, other = clone(served, job, "once", from_step=4), clone(served, job, "once", from_step=2)
    assert [answer.status_code for answer in (first, again, other)] == [201, 200, 409]
    assert again.json()["id"] == first.json()["id"]
    assert runs(served) == before - {job["id"]} | {first.json()["id"]}


def test_a_branch_of_a_branch_is_one_of_its_own_checkpoints(served: Served, job: dict[str, Any]) -> None:
    branch = clone(served, job, from_step=2).json()
    put_checkpoint(folder_of(served, branch), 6)
    second = clone(served, branch, from_step=6).json()
    assert (second["parent"], second["parent_step"]) == (branch["id"], 6)


def test_a_specification_can_name_a_run_folder_by_its_path(served: Served, job: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(folder_of(served, job).path, tmp_path / "elsewhere")
    document = job["spec"] | {"start_from": {"run": str(tmp_path / "elsewhere"), "step": 2}}
    answer = served.http.post("/v1/jobs", json=document)
    assert answer.status_code == 201
    assert answer.json()["parent"] == str(tmp_path / "elsewhere")
    relative = served.http.post("/v1/jobs", json=document | {"start_from": {"run": "./elsewhere", "step": 2}})
    assert relative.json()["errors"][0]["problem"] == "is a relative path"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"from_step": 0}, "from_step"),
        ({"from_step": "last"}, "from_step"),
        ({"set": ["seed"]}, "set"),
        ({"step": 4}, "step"),
        ({"set": {"phases[9].lr": 1}}, "phases[9].lr"),
        ({"set": {"phases[0].lr": "fast"}}, "phases[0].lr"),
    ],
)
def test_a_bad_request_is_refused_by_its_field(
    served: Served, job: dict[str, Any], body: dict[str, Any], field: str
) -> None:
    answer = clone(served, job, **body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_a_job_that_is_not_there_cannot_be_cloned(served: Served) -> None:
    assert clone(served, {"id": "nope"}).status_code == 404
