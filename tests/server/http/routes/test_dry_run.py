"""Submissions with `dry_run=true`: a plan is answered, and nothing is left behind."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import TINY, Idle, Served, serving
from workers.contract.documents import parse_spec
from workers.planning.plan import plan


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all these tests, whose cluster has 2 CPUs."""
    with serving(tmp_path_factory.mktemp("dry") / "home", Idle()) as server:
        server.parts.scheduler.turn()
        yield server


def tried(served: Served, document: Any) -> httpx.Response:
    return served.http.post("/v1/jobs", params={"dry_run": "true"}, json=document)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "bigbatch.db" not in path.name}


def test_a_dry_run_answers_with_the_plan_and_leaves_nothing_behind(served: Served) -> None:
    before = files(served.settings.home)
    answer = tried(served, TINY)
    assert answer.status_code == 200
    assert answer.json() == asdict(plan(parse_spec(TINY)))
    (phase,) = answer.json()["phases"]
    assert (phase["steps"], phase["micro_batches"], phase["tokens"]) == (20, 2, 20 * 8 * 64)
    assert served.http.get("/v1/jobs").json()["jobs"] == []
    assert files(served.settings.home) == before


def test_a_dry_run_does_not_use_up_its_key(tmp_path: Path) -> None:
    key = {"Idempotency-Key": "tried first"}
    with serving(tmp_path / "home") as served:
        dry = served.http.post("/v1/jobs?dry_run=true", json=TINY | {"seed": 1}, headers=key)
        wet = served.http.post("/v1/jobs?dry_run=false", json=TINY, headers=key)
    assert (dry.status_code, wet.status_code) == (200, 201)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 1},
        {"phases": [TINY["phases"][0] | {"steps": "many"}]},
        {"data": {"corpus": ["/no/such/file.txt"]}},
        {"model": {"init_from": "/no/such/folder"}},
        {"parallel": {"workers": 100}, "phases": [TINY["phases"][0] | {"global_batch_size": 400}]},
        {"start_from": {"run": "1qx92r16q7na", "step": 4}},
        {"start_from": {"run": "some/where", "step": 4}},
    ],
)
def test_what_a_submission_refuses_a_dry_run_refuses_in_the_same_words(served: Served, changes: dict[str, Any]) -> None:
    dry, wet = tried(served, TINY | changes), served.http.post("/v1/jobs", json=TINY | changes)
    assert dry.status_code == 422
    assert (dry.status_code, dry.json()) == (wet.status_code, wet.json())


def test_the_plan_is_described_field_by_field(served: Served) -> None:
    api = served.http.get("/openapi.json").json()
    schemas, answers = api["components"]["schemas"], api["paths"]["/v1/jobs"]["post"]["responses"]
    assert answers["201"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Submitted"}
    choices = answers["200"]["content"]["application/json"]["schema"]["anyOf"]
    assert {"$ref": "#/components/schemas/Plan"} in choices
    answer = tried(served, TINY | {"parallel": {"workers": 2}}).json()
    phase, (stage, *_) = answer["phases"][0], answer["stages"]
    for name, value in (
        ("Plan", answer),
        ("PhasePlan", phase),
        ("StagePlan", stage),
        ("Memory", stage["memory"]),
        ("Exchange", phase["exchanges"][0]),
    ):
        assert set(schemas[name]["properties"]) == set(value)
    assert "over which gradients are accumulated" in schemas["PhasePlan"]["properties"]["micro_batches"]["description"]
