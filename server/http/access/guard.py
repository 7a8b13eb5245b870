"""Who may do what: each request needs a token or a session, and its role must allow what is asked."""

import re
import secrets
from collections.abc import Callable
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from server.callers import Caller, Role
from server.errors import ForbiddenError, ServerError, UnauthorizedError
from server.http.problems import problem_response
from server.storage.tokens import Tokens, digest

from .auditing import Auditor
from .login import PAGE, Login, foreign_page, is_own
from .rates import Rates

_OPEN = re.compile(r"/(healthz|readyz|favicon\.ico|static/.*)")
_INGEST = re.compile(r"/v1/jobs/([^/]+)/events")
_LOGOUT = "/logout"
_ADMINISTRATION = re.compile(r"/v1/(tokens|audit)(/.*)?")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Guard:
    """ASGI middleware that answers 401 to every request that shows nothing valid, and 403 where the role is too low.

    Args:
        app: the application behind it.
        tokens: knows the tokens that are sent as bearer tokens.
        login: knows the sessions of browsers.
        auditor: writes down what is changed.
        job_digest: returns the SHA-256 of a job's token, None where there is none.
    """

    def __init__(
        self, app: ASGIApp, *, tokens: Tokens, login: Login, auditor: Auditor, job_digest: Callable[[str], str | None]
    ) -> None:
        self._app, self._tokens, self._login, self._auditor = app, tokens, login, auditor
        self._job_digest, self._rates = job_digest, Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one request, or pass it on."""
        if scope["type"] != "http" or _is_open(Request(scope)):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            app, caller = await self._decide(request)
        except ServerError as error:
            app, caller = problem_response(error), None
        await app(scope, receive, send if caller is None else self._auditor.watching(caller, request, send))

    async def _decide(self, request: Request) -> tuple[ASGIApp, Caller | None]:
        """Return what is to answer the request, and who sent it, None where nobody is let in."""
        path, is_page = request.url.path, PAGE.fullmatch(request.url.path) is not None
        if is_page and (in_link := request.query_params.get("token")):
            return await self._login.by_link(request, in_link), None
        caller = await self._caller(request)
        self._rates.count(f"at {request.client and request.client.host}" if caller is None else caller.name)
        if caller is None:
            return self._login.page(path) if is_page else problem_response(_refusal(request), _CHALLENGE), None
        request.state.caller = caller
        request.state.is_let_in = partial(self._is_let_in, request)
        is_forbidden = path != _LOGOUT and not _is_allowed(caller, request)
        return problem_response(_forbidden(caller, request)) if is_forbidden else self._app, caller

    async def _is_let_in(self, request: Request) -> bool:
        return await self._caller(request) is not None

    async def _caller(self, request: Request) -> Caller | None:
        bearer = _bearer(request)
        ingest = _INGEST.fullmatch(request.url.path)
        if ingest and request.method == "POST":
            known = await run_in_threadpool(self._job_digest, ingest[1])
            is_right = known is not None and bearer is not None and secrets.compare_digest(digest(bearer), known)
            return Caller(f"job:{ingest[1]}", Role.JOB) if is_right else None
        if bearer is not None:
            return await run_in_threadpool(self._tokens.caller, bearer)
        return await self._login.caller(request)


def is_administration(path: str) -> bool:
    """Whether only admins may ask for what is at this path."""
    return _ADMINISTRATION.fullmatch(path) is not None


def _is_open(request: Request) -> bool:
    path = request.url.path
    return _OPEN.fullmatch(path) is not None or (path == "/login" and request.method == "POST")


def _bearer(request: Request) -> str | None:
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" else None


def _is_allowed(caller: Caller, request: Request) -> bool:
    if caller.role is Role.JOB:  # its token was accepted for this one request
        return True
    return caller.role.allows(request.method, of_administration=is_administration(request.url.path))


def _forbidden(caller: Caller, request: Request) -> ForbiddenError:
    needed = Role.ADMIN if is_administration(request.url.path) else Role.OPERATOR
    what = f"{request.method} {request.url.path}"
    return ForbiddenError(
        f"{what} needs a token with the role {needed}, and that of {caller.name} has the role {caller.role}: ask an "
        f"admin of the server for one (`bigbatch token create OWNER --role {needed}`)"
    )


def _refusal(request: Request) -> UnauthorizedError:
    is_push = request.method == "POST" and _INGEST.fullmatch(request.url.path)
    file = "control.json in the folder of this job's run" if is_push else "admin.token in the server's home folder"
    if not is_own(request) and "Authorization" not in request.headers:
        detail = f"{foreign_page(request)}. Programs send `Authorization: Bearer TOKEN`"
    elif "Authorization" not in request.headers:
        detail = f"this request has no token: send `Authorization: Bearer TOKEN`; the token is in the file {file}"
    elif _bearer(request) is None:
        detail = (
            f"this request has no bearer token: send `Authorization: Bearer TOKEN`; the token is in the file {file}"
        )
    else:
        hint = (
            "Records are pushed with their job's own token"
            if is_push
            else "One that was made by `bigbatch token create` may have expired or been revoked; a job's token only "
            "pushes its records"
        )
        detail = f"the token of this request is wrong: the right one is in the file {file}. {hint}"
    return UnauthorizedError(detail)
