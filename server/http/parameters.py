"""The query of a request: what no route reads is refused, where FastAPI would pass over it in silence."""

import difflib
from collections import Counter
from collections.abc import Iterator
from typing import get_args, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from server.errors import ParameterError
from workers.contract.problems import Problem


def check_query(request: Request) -> None:
    """Check that a route of the API knows each parameter of the query, and that one which takes one value has one.

    Links to pages get parameters from others, such as mail programs: a page takes any.

    Raises:
        ParameterError: with a problem for each that it does not know, or that is given again.
    """
    route = request.scope["route"]
    if not request.query_params or not isinstance(route, APIRoute) or not route.path.startswith("/v1/"):
        return
    known = dict(_parameters(route.dependant))
    times = Counter(name for name, _ in request.query_params.multi_items())
    problems = [
        *(_unknown(name, request.query_params[name], list(known)) for name in times if name not in known),
        *(
            _repeated(name, request.query_params.getlist(name))
            for name in times
            if times[name] > 1 and not known.get(name, True)
        ),
    ]
    if problems:
        raise ParameterError("; ".join(map(str, problems)), problems)


def _parameters(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    """Yield the name of each parameter, and whether it takes several values."""
    for field in dependant.query_params:
        kinds = (field.field_info.annotation, *get_args(field.field_info.annotation))
        yield field.alias, any(get_origin(kind) is list for kind in kinds)
    for part in dependant.dependencies:
        yield from _parameters(part)


def _unknown(name: str, value: str, known: list[str]) -> Problem:
    near = difflib.get_close_matches(name, known, n=1)
    those = f"remove it; the parameters here are {', '.join(known)}" if known else "remove it; this route has none"
    return Problem(
        f"query.{name}", repr(value), "there is no such parameter", f"did you mean {near[0]!r}?" if near else those
    )


def _repeated(name: str, values: list[str]) -> Problem:
    return Problem(f"query.{name}", ", ".join(map(repr, values)), "is given more than once", "write one value")
