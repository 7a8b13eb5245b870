import pytest

from tests.serving import Served


def test_the_answers_and_the_token_are_described_as_they_are(served: Served) -> None:
    api = served.http.get("/openapi.json").json()
    schemas = api["components"]["schemas"]
    assert api["security"] == [{"token": []}]
    assert api["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    refused = served.http.get("/v1/jobs?limit=0")
    media = refused.headers["Content-Type"]
    for methods in api["paths"].values():
        for operation in methods.values():
            assert all(parameter["description"] for parameter in operation.get("parameters", []))
            assert set(operation["responses"]) & {"200", "201", "204"}
            assert "default" not in operation["responses"]
            problem = operation["responses"]["422"]["content"][media]["schema"]["$ref"].rpartition("/")[2]
            assert set(refused.json()) <= set(schemas[problem]["properties"])
    submitted = served.submit()
    assert set(submitted) == set(schemas["Submitted"]["properties"])
    for name, field in schemas["Job"]["properties"].items():
        assert schemas["Submitted"]["properties"][name] == field


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("get", "/v1/jobs", {"200", "400", "401", "422", "429", "500", "503"}),
        ("get", "/v1/jobs/{job_id}", {"200", "400", "401", "404", "422", "429", "500", "503"}),
        ("post", "/v1/jobs/{job_id}/pause", {"200", "400", "401", "403", "404", "409", "422", "429", "500", "503"}),
        ("get", "/v1/audit", {"200", "400", "401", "403", "422", "429", "500", "503"}),
    ],
)
def test_each_route_names_the_statuses_by_which_it_answers(
    served: Served, method: str, path: str, statuses: set[str]
) -> None:
    assert set(served.http.get("/openapi.json").json()["paths"][path][method]["responses"]) == statuses


def test_a_submission_may_also_be_late_too_large_of_another_type_or_at_odds_with_its_key(served: Served) -> None:
    answers = served.http.get("/openapi.json").json()["paths"]["/v1/jobs"]["post"]["responses"]
    assert set(answers) >= {"200", "201", "403", "408", "409", "413", "415"}
    assert "The Idempotency-Key was used before" in answers["409"]["description"]


def test_the_body_of_a_push_is_described_with_every_kind_of_record(served: Served) -> None:
    api = served.http.get("/openapi.json").json()
    body = api["paths"]["/v1/jobs/{job_id}/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    records = api["components"]["schemas"][body["$ref"].rpartition("/")[2]]["properties"]["records"]
    kinds = {"status", "tensors", "step", "evaluation", "checkpoint", "alert", "log"}
    assert set(records["items"]["discriminator"]["mapping"]) == kinds
