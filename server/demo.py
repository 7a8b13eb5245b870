"""`bigbatch demo`: the whole service on this machine, from an empty folder to a trained model, watched live."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from .client import Client, ClientError, JsonObject
from .doctor import holder, is_free
from .progress import watch

if TYPE_CHECKING:
    from types import FrameType

START_S = 60.0
STOP_S = 60.0


class DemoError(ClientError):
    """The demonstration cannot begin."""

    exit_code = 2


def run(document: JsonObject, home: Path, host: str, port: int, console: Console, *, as_json: bool) -> JsonObject:
    """Serve, train and show it; return the job as it ended, with the server still up while somebody looks on.

    Raises:
        DemoError: the port is taken; nothing was started.
    """
    check_port(home, host, port)
    signal.signal(signal.SIGTERM, _as_interrupt)
    with _server(home, host, port) as server:
        client = _when_ready(server, home)
        job = client.submit(document)
        notes = Console(stderr=True) if as_json else console
        notes.print(f"Dashboard: {client.link('/jobs/' + job['id'])}", soft_wrap=True, highlight=False)
        try:
            job = watch(client, job["id"], console, as_json=as_json)
        except KeyboardInterrupt:
            _cancel(client, job["id"], notes)
            raise
        if sys.stdin.isatty() and console.is_terminal:
            notes.print("The dashboard stays up until you press Ctrl-C.")
            with suppress(KeyboardInterrupt):
                server.wait()
    return job


def check_port(home: Path, host: str, port: int) -> None:
    """Refuse a port where something listens already.

    Raises:
        DemoError: the port is taken; says by whom and how to choose another.
    """
    if is_free(host, port):
        return
    client = Client(home)
    if client.is_ready():
        raise DemoError(
            f"a bigbatch server already runs at {client.url}. Give it the job with "
            "`bigbatch submit configs/demo.yaml --watch`, or stop it first."
        )
    raise DemoError(
        f"port {port} on {host} is taken by {holder(port)}. Choose another one: make demo PORT={port + 1}, "
        f"or bigbatch demo --port {port + 1}."
    )


@contextmanager
def _server(home: Path, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run `bigbatch serve`; what it prints goes to server.log in `home`."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "server.cli", "serve", "--home", str(home), "--host", host, "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        # A session of its own, else Ctrl-C would stop the server before the job could be cancelled.
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield server
        finally:
            server.terminate()
            server.wait(STOP_S)


def _when_ready(server: subprocess.Popen[bytes], home: Path) -> Client:
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        client = Client(home)
        if client.is_ready():
            return client
        time.sleep(0.2)
    log = home / "server.log"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise ClientError(f"the server did not start within {START_S:.0f} s; the end of {log}:\n{tail}")


def _cancel(client: Client, job_id: str, notes: Console) -> None:
    notes.print("\nCancelling the job and stopping the server …")
    client.cancel(job_id)
    deadline = time.monotonic() + STOP_S
    while client.job(job_id)["finished_at"] is None and time.monotonic() < deadline:
        time.sleep(0.5)


def _as_interrupt(_signal: int, _frame: "FrameType | None") -> NoReturn:
    raise KeyboardInterrupt
