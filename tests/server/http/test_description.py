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
            problem = operation["responses"]["default"]["content"][media]["schema"]["$ref"].rpartition("/")[2]
            assert set(refused.json()) <= set(schemas[problem]["properties"])
    submitted = served.submit()
    assert set(submitted) == set(schemas["Submitted"]["properties"])
    for name, field in schemas["Job"]["properties"].items():
        assert schemas["Submitted"]["properties"][name] == field


def test_the_body_of_a_push_is_described_with_every_kind_of_record(served: Served) -> None:
    api = served.http.get("/openapi.json").json()
    body = api["paths"]["/v1/jobs/{job_id}/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    records = api["components"]["schemas"][body["$ref"].rpartition("/")[2]]["properties"]["records"]
    kinds = {"status", "tensors", "step", "evaluation", "checkpoint", "alert", "log"}
    assert set(records["items"]["discriminator"]["mapping"]) == kinds
