import html
import json
import re
from typing import get_args

import httpx
import pytest
from pydantic import BaseModel

from tests.serving import Served
from workers.contract.spec.job import JobSpec


@pytest.mark.parametrize("path", ["/", "/jobs/anything"])
def test_the_dashboard_is_one_page_for_every_path(served: Served, path: str) -> None:
    answer = served.http.get(path)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert f'data-home="{served.settings.home}"' in answer.text
    assert "{" not in answer.text  # every place is filled


def test_every_answer_forbids_scripts_of_others(served: Served) -> None:
    for path in ("/", "/healthz", "/v1/jobs", "/v1/nothing", "/static/pages/app.js"):
        policy = served.http.get(path).headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy


def test_files_of_the_dashboard_are_open_and_asked_for_again_by_their_tag(served: Served) -> None:
    with httpx.Client(base_url=served.url, trust_env=False) as stranger:
        answer = stranger.get("/static/pages/app.js")
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")
        again = stranger.get("/static/pages/app.js", headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304
        assert stranger.get("/static/../app.py").status_code in {401, 404}
        assert stranger.get("/static/%2e%2e/app.py").status_code in {401, 404}


def test_the_documentation_names_every_operation_and_needs_no_other_server(served: Served) -> None:
    page = served.http.get("/docs").text
    for path, methods in served.http.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page
    assert re.findall(r'(?:src|href)="(?![/#])', page) == []


def test_the_body_of_a_submission_is_described_field_by_field(served: Served) -> None:
    api = served.http.get("/openapi.json").json()
    content = api["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert {media: body["schema"] for media, body in content.items()} == {
        "application/json": {"$ref": "#/components/schemas/JobSpec"},
        "application/yaml": {"$ref": "#/components/schemas/JobSpec"},
    }
    schemas = api["components"]["schemas"]
    assert schemas["JobSpec"]["required"] == ["name", "data", "phases"]
    page = html.unescape(served.http.get("/docs").text)
    for model in models_of(JobSpec):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
            stated = schemas[model.__name__]["properties"][name]
            if "description" not in stated:  # that of its own section says the same
                stated = schemas[stated["$ref"].rpartition("/")[2]]
            assert (stated["description"], field.description in page) == (field.description, True)


def test_every_reference_of_the_description_leads_somewhere(served: Served) -> None:
    text = served.http.get("/openapi.json").text
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert "JobSpec" in references
    assert references <= set(json.loads(text)["components"]["schemas"])


def models_of(model: type[BaseModel]) -> set[type[BaseModel]]:
    """Return a model and all models that its fields hold."""
    found = {model}
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= models_of(kind)
    return found


def test_a_server_without_a_cluster_is_healthy_but_not_ready_and_says_why_to_everybody(served: Served) -> None:
    with httpx.Client(base_url=served.url, trust_env=False) as stranger:
        assert stranger.get("/healthz").status_code == 200
        answer = stranger.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["detail"] in {
        "there is no cluster in this test",
        "the scheduler has not asked the cluster yet",
    }
