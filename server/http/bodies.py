"""Bodies of requests, read with a limit and by their media type."""

import json
from typing import Any

from starlette.requests import Request

from server.errors import BodyTooLargeError, MalformedError, MediaTypeError
from workers.contract.documents import read_document, read_json_document, unreadable
from workers.contract.problems import SpecError

LIMIT_BYTES = 2**20
_JSON = frozenset({"application/json", ""})
_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})


async def read_body(request: Request, limit: int = LIMIT_BYTES) -> bytes:
    """Read a body of at most `limit` bytes.

    Raises:
        BodyTooLargeError: it is longer, or says that it is.
    """
    refusal = BodyTooLargeError(f"the body may have at most {limit:,} bytes")
    if int(request.headers.get("Content-Length", "0")) > limit:
        raise refusal
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise refusal
    return bytes(body)


async def read_job_document(request: Request) -> Any:
    """Read a job document as JSON or YAML, depending on its media type.

    Raises:
        SpecError, MalformedError, MediaTypeError, BodyTooLargeError: it cannot be read.
    """
    media = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media not in _JSON | _YAML:
        raise MediaTypeError(f"the Content-Type {media!r} is not supported; send application/json or application/yaml")
    body = await read_body(request)
    try:
        text = body.decode("utf-8-sig")
        document = read_json_document(text) if media in _JSON else read_document(text)
        # Half a surrogate pair can be written as an escape, but neither stored nor answered.
        json.dumps(document, ensure_ascii=False, default=repr, skipkeys=True).encode()
    except SpecError:
        raise
    except UnicodeError as error:
        raise MalformedError(f"the body is not text in UTF-8 ({error}): send it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        kind = "JSON" if media in _JSON else "YAML"
        raise MalformedError(
            f"the body is not valid {kind}: {unreadable(error)}; correct it, or say in Content-Type what it is"
        ) from None
    return document
