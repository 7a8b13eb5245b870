"""The host names by which a server may be called."""

import re

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import MalformedError
from server.http.problems import problem_response

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/]+))(?::\d+)?")


class KnownNames:
    """ASGI middleware that refuses other names: a foreign page could let a name of its own point to this server.

    Args:
        app: the application behind it.
        names: the names in lower case, IPv6 addresses without brackets.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one request, or pass it on."""
        if scope["type"] == "http":
            host = Request(scope).headers.get("Host", "")
            found = _HOST.fullmatch(host)
            if found is None or (found[1] or found[2]).lower() not in self._names:
                remedy = "write 127.0.0.1 or localhost, or start the server with --allowed-host for the name of a proxy"
                answer = problem_response(MalformedError(f"this server does not answer to the name {host!r}: {remedy}"))
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)
