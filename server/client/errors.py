"""What can go wrong between a client and its server."""

from typing import Any

import httpx

JsonObject = dict[str, Any]


class ClientError(Exception):
    """The server could not be asked, or it refused."""

    exit_code = 1

    def as_dict(self) -> JsonObject:
        """Return the error in the shape of a problem document."""
        return {"title": type(self).__doc__, "detail": str(self)}


class AddressError(ClientError):
    """The address or the token of the server cannot be used."""

    exit_code = 2


class UnreachableError(ClientError):
    """No server answers."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(
            f"no bigbatch server answers at {url} ({reason}). Start one with `bigbatch serve`, or name another one "
            "with --url or --home."
        )


class DownloadError(ClientError):
    """An exported model could not be stored here."""


class NoSuchJobError(ClientError):
    """No job has this id, or several ids begin like this."""

    exit_code = 2


class RefusedError(ClientError):
    """The server refused; `problem` is its problem document."""

    def __init__(self, url: str, answer: httpx.Response) -> None:
        self.problem = _problem_document(url, answer)
        self.status = answer.status_code
        self.exit_code = 2 if answer.is_client_error else 1
        super().__init__(self.problem.get("detail") or self.problem.get("title") or f"HTTP {answer.status_code}")

    def as_dict(self) -> JsonObject:
        """Return the server's problem document."""
        return self.problem


class TokenRefusedError(RefusedError):
    """The server does not accept the token."""

    def __init__(self, url: str, answer: httpx.Response, source: str) -> None:
        super().__init__(url, answer)
        self.problem = {"title": type(self).__doc__, "status": self.status, "detail": refused_token(url, source)}
        self.args = (self.problem["detail"],)


def refused_token(url: str, source: str) -> str:
    """Say which token was sent, and how the right one is given."""
    return (
        f"the server at {url} does not accept {source}. Its token is in the file admin.token in its home folder: "
        "name that folder with --home, or give the token with --token or in BIGBATCH_TOKEN."
    )


def _problem_document(url: str, answer: httpx.Response) -> JsonObject:
    if "json" in answer.headers.get("content-type", ""):
        document = answer.json()
        if isinstance(document, dict):
            return document
    return {"status": answer.status_code, "detail": f"HTTP {answer.status_code} from {url}: is it a bigbatch server?"}
