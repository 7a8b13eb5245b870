"""Bodies of requests, read with a limit and by their media type."""

import asyncio
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from server.errors import BodyTooLargeError, LateRequestError, MediaTypeError, ParameterError
from workers.contract.documents import MOST_LEVELS, read_document, read_json_document
from workers.contract.problems import Problem, SpecError, explain

Model = TypeVar("Model", bound=BaseModel)
LIMIT_BYTES = 2**20
_YAML_CHARACTERS, _YAML_NODES = 2**18, 10_000  # read in about a second; JSON is read a hundred times faster
BODY_S = 30.0
"""How long a body may take to arrive."""
_JSON = frozenset({"application/json", ""})
_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})


async def read_body(request: Request, limit: int = LIMIT_BYTES) -> bytes:
    """Read a body of at most `limit` bytes.

    Raises:
        BodyTooLargeError: it is longer, or says that it is.
        LateRequestError: it does not arrive within BODY_S, or the connection ends before it.
    """
    refusal = BodyTooLargeError(f"the body may have at most {limit:,} bytes")
    if int(request.headers.get("Content-Length", "0")) > limit:
        raise refusal
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise refusal
    except TimeoutError:
        raise LateRequestError(f"the body did not arrive within {BODY_S:g} s: send it at once") from None
    except ClientDisconnect:  # nobody hears this; it counts as a refusal and not as a fault of the server
        raise LateRequestError("the connection ended before the body did: send the request again") from None
    return bytes(body)


async def read_job_document(request: Request) -> Any:
    """Read a job document as JSON or YAML, depending on its media type.

    Raises:
        SpecError: it is not JSON or YAML, or not text in UTF-8.
        MediaTypeError, BodyTooLargeError: it is not read at all.
    """
    media = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media not in _JSON | _YAML:
        raise MediaTypeError(f"the Content-Type {media!r} is not supported; send application/json or application/yaml")
    # In a thread: a second of reading YAML must not hold up every other request.
    return await run_in_threadpool(_parsed, await read_body(request), media)


def _parsed(body: bytes, media: str) -> Any:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unusable(f"is not UTF-8: byte {error.start:,} is {body[error.start]:#04x}", "send it as UTF-8") from None
    if media in _JSON:
        document = read_json_document(text)
    elif len(text) > _YAML_CHARACTERS:
        raise _unusable(f"has more than {_YAML_CHARACTERS:,} characters, too many for YAML", "send it as JSON")
    else:
        document = read_document(text, most_nodes=_YAML_NODES)
    _check_depth(document)
    _check_can_be_answered(document)
    return document


async def read_model(request: Request, model: type[Model]) -> Model:
    """Read a small document, in JSON or YAML as well.

    Raises:
        ParameterError: it is not one, or a field of it is wrong.
        MediaTypeError, BodyTooLargeError: it is not read at all.
    """
    try:
        return model.model_validate(await read_job_document(request))
    except SpecError as error:
        problems = error.problems
    except ValidationError as error:
        problems = explain(error, model).problems
    raise ParameterError("; ".join(map(str, problems)), problems)


def _check_depth(document: Any) -> None:
    """Refuse what is nested deeper than any job, and NUL characters, which not every database can store."""
    rest = [(document, 1)]
    while rest:
        value, depth = rest.pop()
        if isinstance(value, str) and "\0" in value:
            raise _unusable("has a NUL character", "remove the character")
        parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
        if parts and depth >= MOST_LEVELS:
            raise _unusable(f"is nested deeper than {MOST_LEVELS} levels", "write a job as the examples do")
        rest.extend((part, depth + 1) for part in parts)


def _check_can_be_answered(document: Any) -> None:
    """Refuse what can be written as an escape, or in hexadecimal, but neither stored nor answered."""
    try:
        json.dumps(document, ensure_ascii=False, default=repr, skipkeys=True).encode()
    except UnicodeEncodeError:
        raise _unusable("has half of a surrogate pair, which is no character", "write the whole character") from None
    except ValueError:
        raise _unusable("has a number with too many digits", "write a smaller number") from None
    except RecursionError:
        raise _unusable("is nested too deeply", "write a job as the examples do") from None


def _unusable(problem: str, remedy: str) -> SpecError:
    return SpecError([Problem("(document)", "(text)", problem, remedy)])
