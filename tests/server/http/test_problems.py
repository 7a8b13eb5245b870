import asyncio
import json

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from server import errors
from server.http.problems import MEDIA_TYPE, install, problem_response
from workers.contract.problems import Problem, SpecError

CLASSES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ServerError)]
ERRORS = [
    errors.RecordError(7, "loss", "is not a number", "write a number")
    if each is errors.RecordError
    else each("happened")
    for each in CLASSES
]
# Programs out there compare with these; a class that is renamed has to keep its type.
TYPES = {
    "backup",
    "body-too-large",
    "checkpoint-not-found",
    "cluster-unreachable",
    "database",
    "export-not-found",
    "files-left",
    "forbidden",
    "idempotency",
    "job-not-found",
    "late-request",
    "malformed",
    "media-type",
    "not-ready",
    "parameter",
    "record",
    "submission-refused",
    "token-not-found",
    "too-many-connections",
    "too-many-requests",
    "too-many-streams",
    "transition",
    "unauthorized",
}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_of_the_server_has_a_type_a_title_and_a_status(error: errors.ServerError) -> None:
    answer = problem_response(error)
    document = json.loads(bytes(answer.body))
    assert answer.media_type == MEDIA_TYPE
    assert document["type"].startswith("urn:bigbatch:problem:")
    assert document["title"].endswith(".")
    assert (document["status"], document["detail"]) == (error.status, error.detail)
    assert answer.status_code == error.status


def test_the_types_that_programs_tell_problems_apart_by_stay_as_they_are() -> None:
    types = {json.loads(bytes(problem_response(error).body))["type"].rpartition(":")[2] for error in ERRORS}
    assert TYPES - types == set()


def test_the_types_of_all_errors_differ() -> None:
    types = {json.loads(bytes(problem_response(error).body))["type"] for error in ERRORS}
    assert len(types) == len(ERRORS)


def test_whatever_a_route_raises_is_answered_by_a_problem_document() -> None:
    app = FastAPI()
    install(app)
    problem = Problem("phases", "()", "has 0 items", "write one")

    @app.get("/spec")
    async def spec() -> None:
        await asyncio.sleep(0)
        raise SpecError([problem])

    @app.get("/broken")
    async def broken() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("a secret of ours")

    client = TestClient(app, raise_server_exceptions=False)
    answers = {path: client.get(path) for path in ("/spec", "/broken", "/nowhere")}
    assert [answer.status_code for answer in answers.values()] == [422, 500, 404]
    assert {answer.headers["content-type"] for answer in answers.values()} == {MEDIA_TYPE}
    assert answers["/spec"].json()["errors"] == [problem.as_dict()]
    assert "secret" not in answers["/broken"].text
    assert "/docs lists the routes" in answers["/nowhere"].json()["detail"]
