"""The connection to one server: requests that are repeated while it is busy, and streams."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import httpx

from workers.contract.tls import trusting_only

from .address import find_server
from .errors import RefusedError, TokenRefusedError, UnreachableError

T = TypeVar("T")
SILENCE_S = 45.0  # the server breaks the silence of a stream more often than this
BUSY_S = 60.0  # how long a request is repeated that a server could not store and asks for again
_DIRECTLY = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}  # never through a proxy


class Connection:
    """Speaks to the server of a home folder, or to the one at `url`.

    Every method raises `UnreachableError` where none answers, and `RefusedError` where it refuses.
    """

    def __init__(self, home: Path, url: str | None, token: str | None) -> None:
        self._address = find_server(home, url, token)
        self.url, self.token = self._address.url, self._address.token
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        certificate = self._address.certificate
        trusted = True if certificate is None else trusting_only(certificate)
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=SILENCE_S, mounts=_DIRECTLY, verify=trusted
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, shape: type[T], method: str, path: str, **options: Any) -> T:  # noqa: ARG002 -- for the type alone
        """Return the document that answers a request, which the API describes as one of this shape."""
        answer = self.send(method, path, **options)
        if "json" not in answer.headers.get("content-type", ""):
            raise self._refusal(answer)
        document: T = answer.json()
        return document

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the answer to a request."""
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                answer = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                raise UnreachableError(self.url, _reason(error)) from None
            wait_s = _asks_to_wait_s(answer)
            if wait_s is None or time.monotonic() + wait_s > deadline:
                break
            time.sleep(wait_s)
        if not answer.is_success:
            raise self._refusal(answer)
        return answer

    @contextmanager
    def stream(self, path: str, *, may_be_silent: bool = False, **options: Any) -> Iterator[httpx.Response]:
        """Yield an answer that is read as it comes; with `may_be_silent`, for however long nothing does."""
        patience = httpx.Timeout(SILENCE_S, read=None if may_be_silent else SILENCE_S)
        try:
            with self._http.stream("GET", path, timeout=patience, **options) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._refusal(answer)
                yield answer
        except httpx.TransportError as error:
            raise UnreachableError(self.url, _reason(error)) from None

    def _refusal(self, answer: httpx.Response) -> RefusedError:
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            return TokenRefusedError(self.url, answer, self._address.source)
        return RefusedError(self.url, answer)


def _asks_to_wait_s(answer: httpx.Response) -> int | None:
    """Return how long a server that has done nothing yet asks to wait before the same request; None otherwise."""
    told = answer.headers.get("Retry-After", "")
    return int(told) if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE and told.isdecimal() else None


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
