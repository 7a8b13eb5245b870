"""The names by which a server that only this machine reaches may be called."""

import re

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import MalformedError
from server.http.problems import problem_response

_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)


class LoopbackNames:
    """ASGI middleware that refuses other names of this machine: a foreign page could let its own name point here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one request, or pass it on."""
        if scope["type"] == "http":
            host = Request(scope).headers.get("Host", "")
            if not _LOOPBACK.fullmatch(host):
                remedy = "write 127.0.0.1 or localhost, or start the server with --host for other machines"
                answer = problem_response(MalformedError(f"this server does not answer to the name {host!r}: {remedy}"))
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)
