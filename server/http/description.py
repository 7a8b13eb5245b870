"""The API's description in OpenAPI: what FastAPI makes of the routes, and what it cannot see."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from workers.contract.problems import Problem
from workers.contract.push import Push

from .problems import MEDIA_TYPE

Description = dict[str, Any]
_REFERENCE = "#/components/schemas/{model}"
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


PROBLEMS: dict[int | str, Description] = {
    "default": {"model": ProblemDocument, "description": "The request was refused, or the server failed."}
}
"""The answer of every route that is not a success."""


def describe(app: FastAPI) -> None:
    """Have `app` describe the token, the media type of errors and the body of a push."""
    inner: Callable[[], Description] = app.openapi
    made: list[Description] = []

    def openapi() -> Description:
        if not made:
            made.append(_complete(inner()))
        return made[0]

    app.openapi = openapi  # type: ignore[method-assign] # the way that FastAPI names for it


def _complete(api: Description) -> Description:
    schemas, pushed = api["components"]["schemas"], Push.model_json_schema(ref_template=_REFERENCE)
    schemas |= pushed.pop("$defs") | {"Push": pushed}
    schemas["Submitted"]["properties"] |= schemas["Job"]["properties"]  # pydantic reads the docstrings of one class
    api["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "description": _TOKEN}}
    api["security"] = [{"token": []}]
    for methods in api["paths"].values():
        for operation in methods.values():
            problem = operation["responses"]["default"]
            problem["content"] = {MEDIA_TYPE: problem["content"]["application/json"]}
    return api
