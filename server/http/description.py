"""The API's description in OpenAPI: what FastAPI makes of the routes, and what it cannot see."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from server import errors
from server.callers import READING
from workers.contract.problems import Problem
from workers.contract.push import Push

from .access.guard import is_administration
from .problems import MEDIA_TYPE

Description = dict[str, Any]
_REFERENCE = "#/components/schemas/{model}"
_KEY = "idempotency-key"
_TOKEN = "The token in the file admin.token in the server's home folder; to push records, the one of their job."  # noqa: S105


class ProblemDocument(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """Kind of the problem; programs tell problems apart by it."""
    title: str
    """The kind in words."""
    status: int
    """The HTTP status."""
    detail: str
    """This problem in words, with the remedy."""
    errors: list[Problem] | None = None
    """The fields that are wrong; absent where no field is."""
    seq: int | None = None
    """Number of the record that is refused; absent where it is not about one record."""


_ALWAYS = (
    errors.MalformedError,
    errors.UnauthorizedError,
    errors.ParameterError,
    errors.TooManyRequestsError,
    errors.ServerError,
    errors.DatabaseError,
)
_MISSING = {
    "{job_id}": errors.JobNotFoundError,
    "{step}": errors.CheckpointNotFoundError,
    "{sweep_id}": errors.SweepNotFoundError,
    "{token_id}": errors.TokenNotFoundError,
    "/export": errors.ExportNotFoundError,
    "/logs": errors.LogNotFoundError,
}


def _refusals(method: str, path: str, operation: Description) -> Iterator[type[errors.ServerError]]:
    """Yield the errors by which a route may answer."""
    yield from _ALWAYS
    yield from (error for part, error in _MISSING.items() if part in path)
    is_changing = method.upper() not in READING
    if is_changing or is_administration(path):
        yield errors.ForbiddenError
    if is_changing and ("{job_id}" in path or any(each["name"] == _KEY for each in operation.get("parameters", ()))):
        yield from (errors.TransitionError, errors.IdempotencyError)
    if "requestBody" in operation:
        yield from (errors.LateRequestError, errors.BodyTooLargeError, errors.MediaTypeError)
    if "checkpoints" in path or "export" in path:
        yield errors.StoreUnreachableError


def _problems(refusals: Iterable[type[errors.ServerError]]) -> Description:
    """Describe the answers of each status of these errors."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model=ProblemDocument.__name__)}}}
    titles: dict[str, list[str]] = {}
    for error in sorted(refusals, key=lambda each: each.status):
        titles.setdefault(str(error.status), []).append(error().title)
    return {status: {"description": " ".join(each), "content": content} for status, each in titles.items()}


def describe(app: FastAPI) -> None:
    """Have `app` describe the token, the errors of each route and the body of a push."""
    inner: Callable[[], Description] = app.openapi
    made: list[Description] = []

    def openapi() -> Description:
        if not made:
            made.append(_complete(inner()))
        return made[0]

    app.openapi = openapi  # type: ignore[method-assign] # the way that FastAPI names for it


def _complete(api: Description) -> Description:
    schemas, pushed = api["components"]["schemas"], Push.model_json_schema(ref_template=_REFERENCE)
    problem = ProblemDocument.model_json_schema(ref_template=_REFERENCE)
    schemas |= pushed.pop("$defs") | {"Push": pushed} | problem.pop("$defs") | {ProblemDocument.__name__: problem}
    schemas["Submitted"]["properties"] |= schemas["Job"]["properties"]  # pydantic reads the docstrings of one class
    api["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "description": _TOKEN}}
    api["security"] = [{"token": []}]
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            operation["responses"] |= _problems(_refusals(method, path, operation))
    return api
