import html
import json
import re
from typing import get_args

from pydantic import BaseModel

from tests.serving import Served
from workers.contract.spec.job import JobSpec


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
