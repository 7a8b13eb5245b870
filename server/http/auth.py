"""Who may do what: the admin token opens everything, a job's token only the push of its own records."""

import html
import re
import secrets
from collections.abc import Callable
from urllib.parse import parse_qs, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.callers import ADMIN, Caller, Role
from server.errors import MalformedError, ServerError, UnauthorizedError
from server.storage.runs import digest

from .bodies import read_body
from .problems import problem_response

_OPEN = frozenset({"/healthz", "/readyz", "/favicon.ico"})
_INGEST = re.compile(r"/v1/jobs/([^/]+)/events")
_PAGE = re.compile(r"/|/jobs/[^/]*")
_LOGIN_BYTES = 4096
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)
_FORM = """<!doctype html><html lang="en"><meta charset="utf-8"><title>bigbatch</title>
<link rel="stylesheet" href="/static/style.css"><main><h1>bigbatch</h1>
<form method="post" action="/login"><input type="hidden" name="next" value="{path}">
{problem}<p><label>Token <input type="password" name="token" autocomplete="off" autofocus required></label>
<button>Open</button></p>
<p>The token is part of the link that <code>bigbatch serve</code> prints, and is kept in the file
<code>admin.token</code> in the server's home folder.</p>
</form></main></html>"""
_WRONG = '<p class="problem" role="alert">This is not the token of this server.</p>\n'


class Guard:
    """ASGI middleware that answers 401 to every request without the right token.

    Args:
        app: the application behind it.
        token: the admin token; sent as a bearer token, or as the cookie that a browser gets for it.
        cookie: name of that cookie; cookies are shared by all ports of a host, so it names the port.
        job_digest: returns the SHA-256 of a job's token, None where there is none.
    """

    def __init__(self, app: ASGIApp, *, token: str, cookie: str, job_digest: Callable[[str], str | None]) -> None:
        self._app, self._token, self._cookie, self._job_digest = app, token, cookie, job_digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except ServerError as error:  # the database, which knows the tokens of jobs, cannot be read
            answer = problem_response(error)
        await (answer or self._app)(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        path, is_page = request.url.path, _PAGE.fullmatch(request.url.path) is not None
        if path in _OPEN or path.startswith("/static/"):
            return None
        if path == "/login" and request.method == "POST":
            return await self._log_in(request)
        in_link = request.query_params.get("token", "")
        if is_page and self._is_admin(in_link):
            return self._let_in(path)
        if (caller := await self._caller(request)) is not None:
            request.state.caller = caller
            return None
        return _login_page(path, is_wrong=bool(in_link)) if is_page else _refusal(request)

    async def _caller(self, request: Request) -> Caller | None:
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        bearer = bearer.strip() if scheme.lower() == "bearer" else ""
        ingest = _INGEST.fullmatch(request.url.path)
        if ingest and request.method == "POST":
            known = await run_in_threadpool(self._job_digest, ingest[1])
            is_right = known is not None and _same(digest(bearer), known)
            return Caller(f"job:{ingest[1]}", Role.JOB) if is_right else None
        in_cookie = request.cookies.get(self._cookie, "")
        is_admin = self._is_admin(bearer) or (self._is_admin(in_cookie) and _is_own(request))
        return ADMIN if is_admin else None

    async def _log_in(self, request: Request) -> Response:
        try:
            form = parse_qs((await read_body(request, _LOGIN_BYTES)).decode(errors="replace"))
        except ServerError as error:
            return problem_response(error)
        target = form.get("next", ["/"])[0]
        path = target if _PAGE.fullmatch(target) and not target.startswith("//") else "/"
        return (
            self._let_in(path)
            if self._is_admin(form.get("token", [""])[0].strip())
            else _login_page(path, is_wrong=True)
        )

    def _let_in(self, path: str) -> Response:
        answer = RedirectResponse(quote(path), status_code=303)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", max_age=30 * 24 * 3600)
        return answer

    def _is_admin(self, token: str) -> bool:
        return _same(token, self._token)


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


def _same(presented: str, expected: str) -> bool:
    return secrets.compare_digest(presented.encode(), expected.encode())


def _is_own(request: Request) -> bool:
    """Whether a request with a cookie comes from our own page: other ports of this host count as the same site."""
    origin = request.headers.get("Origin")
    return origin is None or origin == f"{request.url.scheme}://{request.headers.get('Host', '')}"


def _refusal(request: Request) -> Response:
    is_push = request.method == "POST" and _INGEST.fullmatch(request.url.path)
    file = "control.json in the folder of this job's run" if is_push else "admin.token in the server's home folder"
    if "Authorization" not in request.headers:
        detail = f"this request has no token: send `Authorization: Bearer TOKEN`; the token is in the file {file}"
    elif request.headers["Authorization"].partition(" ")[0].lower() != "bearer":
        detail = (
            f"this request has no bearer token: send `Authorization: Bearer TOKEN`; the token is in the file {file}"
        )
    else:
        hint = "Records are pushed with their job's own token" if is_push else "A job's token only pushes its records"
        detail = f"the token of this request is wrong: the right one is in the file {file}. {hint}"
    return problem_response(UnauthorizedError(detail), {"WWW-Authenticate": "Bearer"})


def _login_page(path: str, *, is_wrong: bool = False) -> Response:
    page = _FORM.format(path=html.escape(path), problem=_WRONG if is_wrong else "")
    return HTMLResponse(page, status_code=401)
