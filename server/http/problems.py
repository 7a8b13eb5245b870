"""Every error as an RFC 9457 problem document; the one place where errors meet HTTP."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from server.errors import ParameterError, RecordError, ServerError
from workers.contract.problems import SpecError, explain_parameters

MEDIA_TYPE = "application/problem+json"


def problem_response(error: ServerError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return `error` as a problem document."""
    if error.retry_after_s is not None:
        headers = {"Retry-After": str(error.retry_after_s)} | dict(headers or {})
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__.removesuffix("Error")).lower()
    more = {"seq": error.seq} if isinstance(error, RecordError) else {}
    return _problem(name, error.title, error.status, error.detail, error.errors, headers, **more)


def install(app: FastAPI) -> None:
    """Have `app` answer every error with a problem document."""
    app.add_exception_handler(ServerError, _server_error)
    app.add_exception_handler(SpecError, _spec_error)
    app.add_exception_handler(RequestValidationError, _parameter_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def _problem(
    name: str,
    title: str,
    status: int,
    detail: str,
    errors: Any = (),
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    document = {"type": f"urn:bigbatch:problem:{name}", "title": title, "status": status, "detail": detail} | more
    if errors:
        document["errors"] = [each.as_dict() for each in errors]
    return JSONResponse(document, status, headers, media_type=MEDIA_TYPE)


async def _server_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServerError)  # noqa: S101 -- Starlette hands over what it was told to
    return problem_response(error)


async def _spec_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SpecError)  # noqa: S101 -- as above
    title = "The job specification is not valid."
    return _problem("specification", title, HTTPStatus.UNPROCESSABLE_ENTITY, str(error), error.problems)


async def _parameter_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- as above
    problems = explain_parameters(error.errors())
    return problem_response(ParameterError("; ".join(map(str, problems)), problems))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 -- as above
    phrase = HTTPStatus(error.status_code).phrase
    detail = f"{request.method} {request.url.path}: {error.detail}; /docs lists the routes"
    return _problem(phrase.lower().replace(" ", "-"), phrase, error.status_code, detail, headers=error.headers)


async def _unexpected(request: Request, _: Exception) -> JSONResponse:
    detail = f"{request.method} {request.url.path} failed; the reason is in the server's log"
    return _problem("internal", "The server failed.", HTTPStatus.INTERNAL_SERVER_ERROR, detail)
