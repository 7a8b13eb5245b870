"""`bigbatch serve`: one server for one home, from its first check to its end."""

import fcntl
import json
import logging
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from urllib.parse import urlsplit

import uvicorn

from server import logs
from server.errors import DatabaseError
from server.ports import obstacle
from server.settings import OWN_PATHS, Settings
from server.storage.home import close_home
from workers.contract.files import SecretError, secret, write_private
from workers.contract.problems import SpecError
from workers.contract.run.remote import RemoteStore, StorageError
from workers.contract.run.storage import check_url
from workers.contract.tls import first_certificate, trusting_only

from .access.connections import PatientProtocol, allow_files
from .app import create_app
from .context import Server

_STREAMS_S = 3
_STALLED_S = 60
_CHECK = "check-of-bigbatch-serve"
_SEGMENT = re.compile(r"(?!\.{1,2}$)[\w.~-]+", re.ASCII)
FAILED, BAD_USAGE = 1, 2
log = logging.getLogger(__name__)


class CannotServeError(Exception):
    """The server cannot start, for a reason that the user can change."""


def serve(settings: Settings, *, as_json: bool = False) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code."""
    logs.configure(as_json=settings.log_json)
    try:
        _check_cluster(settings)
        _check_exposure(settings)
        _check_tls(settings)
        _check_storage(settings)
        _check_proxy(settings)
        with _sole_server(settings):
            _check_home(settings)
            _check_port(settings)
            return _run(settings, as_json=as_json)
    except (CannotServeError, DatabaseError) as error:
        return _refuse(str(error), settings, as_json=as_json)
    except OSError as error:
        where, why = error.filename or settings.home, error.strerror or error
        remedy = "check the free space there and who may write it, or choose another folder with --home"
        return _refuse(f"{where} cannot be used ({why}); {remedy}", settings, as_json=as_json)


def _refuse(detail: str, settings: Settings, *, as_json: bool) -> int:
    told = {"title": "The server cannot start.", "detail": detail}
    if settings.log_json and not as_json:
        log.critical("the server cannot start: %s", detail)
    else:
        print(json.dumps(told) if as_json else f"bigbatch serve: {detail}", file=sys.stderr)  # noqa: T201
    return BAD_USAGE


def _check_exposure(settings: Settings) -> None:
    """Refuse to send tokens over a network in the clear, unless that is wanted."""
    if settings.is_loopback or settings.tls_cert is not None or settings.without_tls:
        return
    raise CannotServeError(
        f"--host {settings.host} lets other machines reach this server, and by plain HTTP whoever reads the network "
        "reads the tokens; name a certificate with --tls-cert and --tls-key, or allow it with --without-tls where "
        "nobody else is on that network, or a proxy with TLS stands before the server"
    )


def _check_tls(settings: Settings) -> None:
    if settings.tls_cert is None:
        if settings.tls_key is not None:
            raise CannotServeError("--tls-key is the key of a certificate, and there is none; name it with --tls-cert")
        return
    try:
        trusting_only(first_certificate(settings.tls_cert.read_text(encoding="ascii")))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = " and ".join(str(file) for file in (settings.tls_cert, settings.tls_key) if file is not None)
        remedy = "--tls-cert takes a PEM file with a certificate and --tls-key one with its key, without a password"
        raise CannotServeError(f"{files} cannot be used for TLS ({error}); {remedy}") from None


def _no_password() -> str:
    raise ValueError("the key has a password")


def _check_storage(settings: Settings) -> None:
    if settings.storage is None:
        return
    try:
        check_url(settings.storage)
        store = RemoteStore(settings.storage)
        store.put(_CHECK, b"written by bigbatch serve, which removes it at once\n")
        store.delete(_CHECK)
    except (SpecError, StorageError) as error:
        raise CannotServeError(str(error)) from None


def _check_proxy(settings: Settings) -> None:
    for address in settings.trusted_proxies:
        try:
            ip_network(address)
        except ValueError as error:
            remedy = "write an address such as 127.0.0.1, or a network such as 10.0.0.0/8"
            raise CannotServeError(f"--trusted-proxy {address!r} cannot be used ({error}); {remedy}") from None
    parts = settings.root_path.split("/")[1:]
    if not all(map(_SEGMENT.fullmatch, parts)) or OWN_PATHS & set(parts):
        remedy = f"write letters, digits and -._~, such as /bigbatch, and none of {', '.join(sorted(OWN_PATHS))}"
        raise CannotServeError(f"--root-path {settings.root_path!r} cannot be used; {remedy}")


def _run(settings: Settings, *, as_json: bool) -> int:
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STREAMS_S,
        http=PatientProtocol,
        proxy_headers=False,  # the application believes the proxies that are named, and no other
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    allow_files()
    # Once it has stopped, uvicorn raises the signal that stopped it again, which would end us before our own clean-up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server = _Server(config, settings, as_json=as_json)
    server.run()
    return 0 if server.started else FAILED


class _Server(uvicorn.Server):  # type: ignore[misc] # mypy is told to skip uvicorn
    """Prints its address once it listens, and ends the streams before it waits for connections to close."""

    def __init__(self, config: uvicorn.Config, settings: Settings, *, as_json: bool) -> None:
        super().__init__(config)
        self._settings, self._as_json = settings, as_json

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._drop_stalled()
            settings = self._settings
            found = {"url": settings.url, "pid": os.getpid()}
            if settings.tls_cert is not None:
                found["certificate"] = first_certificate(settings.tls_cert.read_text(encoding="ascii"))
            write_private(settings.server_file, json.dumps(found))
            self._tell()

    def _tell(self) -> None:
        """Print where the dashboard is; the token goes to a terminal alone, since anything else may be a log."""
        settings, link = self._settings, f"{self._settings.url}/"
        if sys.stdout.isatty():
            link += f"?token={secret(settings.admin_token)}"
        told = {"home": str(settings.home), "url": settings.url, "dashboard": link, "pid": os.getpid()}
        text = f"bigbatch serves {settings.home}\nDashboard: {link}"
        if not sys.stdout.isatty():
            text += f"\nA link that logs a browser in: bigbatch token link --home {settings.home}"
        print(json.dumps(told) if self._as_json else text, flush=True)  # noqa: T201

    def _drop_stalled(self) -> None:
        """Have the kernel end connections that take nothing for long; it hands this on to each that is accepted."""
        for listening in (each for server in self.servers for each in server.sockets):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _STALLED_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._settings.server_file.unlink(missing_ok=True)
        parts: Server = self.config.app.state.server
        parts.bell.close()
        await super().shutdown(sockets)


@contextmanager
def _sole_server(settings: Settings) -> Iterator[None]:
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = settings.lock.open("a")
    except OSError as error:
        raise CannotServeError(
            f"{settings.home} cannot be written ({error.strerror}); choose another folder with --home"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotServeError(
                f"another server uses {settings.home}; stop it, or choose another folder with --home"
            ) from None
        yield


def _check_home(settings: Settings) -> None:
    """Close the home to other users, and make or check the tokens in it."""
    try:
        close_home(settings)
        secret(settings.admin_token)
        if settings.ray_token.exists():
            secret(settings.ray_token)
    except SecretError as error:
        raise CannotServeError(str(error)) from None


def _check_cluster(settings: Settings) -> None:
    address = settings.ray_address
    if address is None:
        return
    url = urlsplit(address)
    if url.scheme not in {"http", "https"} or url.hostname is None:
        remedy = "write that of the head node's dashboard, such as --ray-address http://head:8265"
        raise CannotServeError(f"--ray-address {address!r} is not a URL that jobs can be submitted to; {remedy}")
    if settings.has_other_nodes and settings.is_loopback:
        where = f"the runs on {url.hostname} could not report to {settings.host}, which only this machine reaches"
        raise CannotServeError(f"{where}; choose an address that the nodes of the cluster reach with --host")


def _check_port(settings: Settings) -> None:
    found = obstacle(settings.host, settings.port)
    if found is not None:
        where = f"port {settings.port} on {settings.host}"
        raise CannotServeError(f"{where} is {found}; choose another one with --port, or another --host")
