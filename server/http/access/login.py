"""How a browser gets in and out: a link or a form with a token, which opens a session, and a cookie that names it."""

import html
import logging
import re
from typing import Literal, TypedDict
from urllib.parse import parse_qs, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from server.callers import Caller
from server.errors import ForbiddenError
from server.http.bodies import read_body
from server.storage.tokens import SESSION, Tokens

from .auditing import Auditor

PAGE = re.compile(r"/|/jobs/[^/]*")
log = logging.getLogger(__name__)
_FORM_BYTES = 4096
_FORM = """<!doctype html><html lang="en"><meta charset="utf-8"><title>bigbatch</title>
<link rel="icon" href="{root}/static/icon.svg">
<link rel="stylesheet" href="{root}/static/style.css"><main><h1>bigbatch</h1>
<form method="post" action="{root}/login"><input type="hidden" name="next" value="{path}">
{problem}<p><label>Token <input type="password" name="token" autocomplete="off" autofocus required></label>
<button>Open</button></p>
<p>The token is part of the link that <code>bigbatch serve</code> prints, and is kept in the file
<code>admin.token</code> in the server's home folder. <code>bigbatch token create</code> makes others.</p>
</form></main></html>"""
_WRONG = '<p class="problem" role="alert">This is not a token of this server, or it has expired.</p>\n'


class _Attributes(TypedDict):
    path: str
    secure: bool
    httponly: bool
    samesite: Literal["strict"]


class Login:
    """Opens and closes the sessions of browsers.

    Args:
        tokens: knows tokens and sessions.
        auditor: is told who logs in.
        cookie: name of the cookie; cookies are shared by all ports of a host, so it names the port.
        root_path: in front of all pages; browsers send the cookie to what lies below it alone.
    """

    def __init__(self, tokens: Tokens, auditor: Auditor, cookie: str, root_path: str) -> None:
        self._tokens, self._auditor, self._cookie, self._root = tokens, auditor, cookie, root_path

    async def caller(self, request: Request) -> Caller | None:
        """Return who is logged in, if the request comes from a page of ours: other ports count as the same site."""
        session = request.cookies.get(self._cookie)
        if session is None or not is_own(request):
            return None
        return await run_in_threadpool(self._tokens.session_caller, session)

    async def by_link(self, request: Request, token: str) -> Response:
        """Answer a link to a page that has a token."""
        return await self._let_in(request, token, request.url.path)

    async def by_form(self, request: Request) -> Response:
        """Answer the form that asks for a token.

        Raises:
            ForbiddenError: another page sent it, to have the browser go on as somebody else.
            BodyTooLargeError: it is no such form.
        """
        if not is_own(request):
            raise ForbiddenError(f"{foreign_page(request)}: open this server's own page")
        form = parse_qs((await read_body(request, _FORM_BYTES)).decode(errors="replace"))
        target = form.get("next", ["/"])[0]
        path = target if PAGE.fullmatch(target) and not target.startswith("//") else "/"
        return await self._let_in(request, form.get("token", [""])[0].strip(), path)

    async def log_out(self, request: Request) -> Response:
        """End the session of the request."""
        await run_in_threadpool(self._tokens.close_session, request.cookies.get(self._cookie, ""))
        answer = RedirectResponse("/", status_code=303)
        answer.delete_cookie(self._cookie, **self._attributes(request))
        return answer

    def page(self, path: str, *, is_wrong: bool = False) -> Response:
        """Return the form that asks for a token, on the way to the page with this path."""
        problem = _WRONG if is_wrong else ""
        return HTMLResponse(_FORM.format(root=self._root, path=html.escape(path), problem=problem), status_code=401)

    async def _let_in(self, request: Request, token: str, path: str) -> Response:
        caller = await run_in_threadpool(self._tokens.caller, token)
        session = None if caller is None else await run_in_threadpool(self._tokens.open_session, token)
        if caller is None or session is None:
            log.warning("somebody at %s tried to log in with a wrong token", request.client and request.client.host)
            return self.page(path, is_wrong=True)
        answer = RedirectResponse(quote(path), status_code=303)
        age = int(SESSION.total_seconds())
        answer.set_cookie(self._cookie, session, max_age=age, **self._attributes(request))
        await self._auditor.write(caller, request, answer.status_code)
        return answer

    def _attributes(self, request: Request) -> _Attributes:
        is_secure = request.url.scheme == "https"
        return {"path": self._root or "/", "secure": is_secure, "httponly": True, "samesite": "strict"}


def is_own(request: Request) -> bool:
    """Whether a request comes from our own page, or from no page at all."""
    origin = request.headers.get("Origin")
    return origin is None or origin == _origin(request)


def foreign_page(request: Request) -> str:
    """Say why a request is taken for that of another server's page."""
    return (
        f"the page that sent this is at {request.headers.get('Origin')}, and this server at {_origin(request)}, as far "
        "as it knows. Behind a proxy, name the proxy with --trusted-proxy, and have it pass on the Host header and set "
        "X-Forwarded-Proto"
    )


def _origin(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('Host', '')}"
