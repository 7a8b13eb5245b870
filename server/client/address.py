"""Where the server is and which token it needs: as the user says, or as its home folder says."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

import httpx

from server.settings import OWN_PATHS, Settings

from .errors import AddressError

_HOW = "write for example http://127.0.0.1:8000"
_OWN = re.compile(rf"/(?:{'|'.join(OWN_PATHS)}|openapi\.json)(?=/|$)")


@dataclass(frozen=True, slots=True)
class Address:
    """A server's URL without a slash at its end, and its token; empty where there is none."""

    url: str
    token: str = field(repr=False)
    source: str
    """Where the token comes from, as a message says it."""
    certificate: str | None = None
    """The certificate of a server on this machine, in PEM, which alone is trusted; None for what the system trusts."""


def find_server(home: Path, url: str | None = None, token: str | None = None) -> Address:
    """Find the server of a home folder, or the one at `url`, which may be a link with a token.

    Raises:
        AddressError: the URL or the token cannot be one, or the token's file cannot be read.
    """
    settings = Settings(home)
    recorded, certificate = _recorded_server(settings)
    if url is None:
        base, in_link = recorded or settings.url, None
    else:
        base, in_link = _read_url(url)
    found, source = token, "the token given with --token or BIGBATCH_TOKEN"
    if found is None and in_link is not None:
        found, source = in_link, "the token in the link"
    if found is None:
        found, source = _recorded_token(settings.admin_token)
    return Address(base, _checked(found.strip(), source), source, certificate if base == recorded else None)


def _read_url(text: str) -> tuple[str, str | None]:
    """Split what a user gives for a server (`host:port`, a URL, a link from `serve`) into its URL and its token."""
    try:
        parts = urlsplit(text.strip() if "://" in text else f"http://{text.strip()}")
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        is_usable = is_usable and not parts.netloc.endswith(":")  # http:/trainer has the second slash missing
        httpx.URL(parts.geturl())
    except (
        ValueError,
        httpx.InvalidURL,
    ) as error:  # a port that is not a number, half an IPv6 address, an impossible host name
        raise AddressError(f"--url {text!r} is not the address of a server ({error}): {_HOW}") from None
    if not is_usable or any(character.isspace() for character in parts.netloc):
        raise AddressError(f"--url {text!r} is not the address of a server: {_HOW}")
    if "@" in parts.netloc:  # it would be sent in the place of the token, and printed with every link
        raise AddressError(
            f"--url for {parts.hostname} has a user name or a password: give a token with --token instead"
        )
    token = parse_qs(parts.query).get("token", [None])[0]
    return f"{parts.scheme}://{parts.netloc}{_prefix(parts)}", token


def _prefix(parts: SplitResult) -> str:
    """Return the path in front of the server's own, where a proxy adds one; no page or route is part of it."""
    return _OWN.split(parts.path, maxsplit=1)[0].rstrip("/")


def _checked(token: str, source: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise AddressError(f"{source} has characters that no token has: copy it again from the server's admin.token")
    return token


def _recorded_server(settings: Settings) -> tuple[str | None, str | None]:
    """Return the URL and the certificate of the server that runs in a home folder."""
    try:
        recorded = json.loads(settings.server_file.read_text(encoding="utf-8"))
        return str(recorded["url"]), recorded.get("certificate")
    except (FileNotFoundError, NotADirectoryError):
        return None, None  # no server runs there
    except (OSError, ValueError, KeyError, TypeError):
        raise AddressError(
            f"{settings.server_file} cannot be read: remove it and start the server again, or name it with --url"
        ) from None


def _recorded_token(path: Path) -> tuple[str, str]:
    try:
        return path.read_text(encoding="utf-8"), f"the token in {path}"
    except (FileNotFoundError, NotADirectoryError):
        return "", f"a request without a token, and there is none in {path}"
    except (OSError, ValueError) as error:
        raise AddressError(
            f"cannot read the token in {path} ({error}): give it with --token or BIGBATCH_TOKEN"
        ) from None
