"""What a request's body may be."""

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from server.errors import LateRequestError
from server.http.bodies import read_body
from tests.serving import Served

YAML = {"Content-Type": "application/yaml"}


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b'{"name": "x", "steps": 1}', JSON, 422, "data = (absent): is required"),
        (b"[1, 2]", JSON, 422, "is not a mapping"),
        (b"null", JSON, 422, "mapping"),
        (b"", JSON, 422, "line 1, column 1 = (text): not valid JSON: Expecting value"),
        (b'{"name": ', JSON, 422, "line 1, column 10 = (text): not valid JSON"),
        (b'{"name": "a",\n "seed" 1}', JSON, 422, "line 2, column 9 = (text): not valid JSON"),
        (b"\xff\xfe", JSON, 422, "is not UTF-8: byte 0 is 0xff"),
        (b"name: a\xff", YAML, 422, "is not UTF-8: byte 7 is 0xff"),
        (b"[" * 100_000, JSON, 422, "not valid JSON: it is nested too deeply"),
        (b"[" * 101 + b"]" * 101, JSON, 422, "is nested deeper than 100 levels"),
        (b'{"labels": {"a": "x\\u0000"}}', JSON, 422, "has a NUL character. Remedy: remove the character"),
        (b'{"labels": {"a\\u0000": "x"}}', JSON, 422, "has a NUL character"),
        (b'name: "a\\0"', YAML, 422, "has a NUL character"),
        (b"name: a\0", YAML, 422, "the character U+0000 is not allowed"),
        (b"a: [" + b"[]," * 20_000 + b"]", YAML, 422, "it has more than 10,000 values, and JSON may have more"),
        (b"a: " + b"x" * 300_000, YAML, 422, "has more than 262,144 characters, too many for YAML"),
        (b"a: &a [x]\nb: &b [*a,*a]\nc: [*b,*b]", YAML, 422, "aliases are not allowed"),
        (b"a: !!python/object/apply:os.system [ls]", YAML, 422, "could not determine a constructor"),
        (b"1" * 5000, JSON, 422, "not valid JSON: a number has too many digits"),
        (b"a: " + b"1" * 5000, YAML, 422, "line 1, column 4 = (text): not valid YAML: a number has too many digits"),
        (b"seed: 0x" + b"f" * 5000, YAML, 422, "has a number with too many digits"),
        (b"name: a\nb: \x01", YAML, 422, "line 2, column 4 = (text): not valid YAML: the character U+0001"),
        (b"\xef\xbb\xbf[]", JSON, 422, "(document) = []: is not a mapping"),
        (b"1: 2", YAML, 422, "has a key that is not text. Remedy: put the key in quotes"),
        (b"a: 1\n---\nb: 1", YAML, 422, "expected a single document in the stream, but found another document"),
        (b"a: [1, 2", YAML, 422, "line 1, column 9 = (text): not valid YAML"),
        (b"a: &x 1\nb: *x", YAML, 422, "aliases are not allowed"),
        (b"name: 2026-99-99", YAML, 422, "line 1, column 7 = (text): not valid YAML: month"),
        (b"[" * 100_000, YAML, 422, "line 1, column 101 = (text): not valid YAML: it is nested deeper than 100 levels"),
        (b"name: a\nname: b", YAML, 422, "line 2, column 1 = 'name': this key is given twice"),
        (b'{"name": "a",\n"name": "b"}', JSON, 422, "line 2, column 1 = 'name': this key is given twice"),
        (b"name: x", {"Content-Type": "text/plain"}, 415, "application/yaml"),
        (b"x" * (2**20 + 1), YAML, 413, "1,048,576"),
    ],
)
def test_what_is_not_a_job_is_refused_with_a_reason_and_leaves_nothing(
    served: Served, body: bytes, headers: dict[str, str], status: int, says: str
) -> None:
    answer = served.http.post("/v1/jobs", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert says in answer.json()["detail"]
    assert {"type", "title", "status", "detail"} <= set(answer.json())
    assert served.http.get("/v1/jobs").json()["jobs"] == []
    assert not (served.settings.home / "runs").exists()


def test_a_body_that_does_not_say_how_long_it_is_is_cut_off_at_the_limit(served: Served) -> None:
    chunks = (b"x" * 65_536 for _ in range(40))
    assert served.http.post("/v1/jobs", content=chunks, headers=YAML).status_code == 413


def test_a_connection_that_ends_within_a_body_is_no_fault_of_the_server() -> None:
    half: Message = {"type": "http.request", "body": b"half", "more_body": True}
    messages = iter([half, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(messages)

    with pytest.raises(LateRequestError, match="the connection ended before the body did"):
        asyncio.run(read_body(Request({"type": "http", "headers": []}, receive)))
