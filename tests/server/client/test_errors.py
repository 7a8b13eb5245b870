"""What a client makes of a refusal."""

import httpx
import pytest

from server.client.errors import RefusedError, TokenRefusedError, UnreachableError

URL = "http://127.0.0.1:8000"
PROBLEM = {"title": "The job's status does not allow this.", "status": 409, "detail": "it has ended"}


@pytest.mark.parametrize(("status", "exit_code"), [(409, 2), (422, 2), (500, 1), (503, 1)])
def test_a_refusal_ends_with_2_where_the_request_was_wrong_and_with_1_where_the_server_failed(
    status: int, exit_code: int
) -> None:
    error = RefusedError(URL, httpx.Response(status, json=PROBLEM))
    assert (error.exit_code, str(error), error.as_dict()) == (exit_code, "it has ended", PROBLEM)


@pytest.mark.parametrize("body", [{"text": "<h1>Bad gateway</h1>"}, {"json": ["no problem document"]}])
def test_an_answer_that_is_no_problem_document_is_told_by_its_status_and_address(body: dict[str, object]) -> None:
    error = RefusedError(URL, httpx.Response(502, **body))  # type: ignore[arg-type]
    assert str(error) == f"HTTP 502 from {URL}: is it a bigbatch server?"


def test_a_refused_token_is_told_with_where_it_came_from_and_not_with_what_it_is() -> None:
    error = TokenRefusedError(URL, httpx.Response(401, json=PROBLEM | {"status": 401}), "the token of BIGBATCH_TOKEN")
    assert "does not accept the token of BIGBATCH_TOKEN" in str(error)
    assert "admin.token" in error.as_dict()["detail"]
    assert error.exit_code == 2


def test_an_unreachable_server_is_named_with_its_address_and_the_remedy() -> None:
    error = UnreachableError(URL, "connection refused")
    assert URL in str(error)
    assert "`bigbatch serve`" in error.as_dict()["detail"]
