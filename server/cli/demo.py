"""`bigbatch demo`: the whole service on this machine, from an empty folder to a trained model, watched live."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from server.client import Client
from server.client.errors import ClientError, JsonObject
from server.client.results import Job
from server.cluster.process import ClusterProcess
from server.ports import obstacle
from server.settings import Settings
from workers.contract.exports import read_export
from workers.contract.run.folder import RunFolder

from .output.progress import watch

START_S = 180.0
STOP_S = 60.0
_SENTENCE = "She was very [MASK] to see him."


class DemoError(ClientError):
    """The demonstration cannot begin."""

    exit_code = 2


def run(document: JsonObject, settings: Settings, console: Console, *, as_json: bool) -> Job:
    """Serve, train and show the job; return it as it ended. In a terminal, keep serving until Ctrl-C.

    Raises:
        DemoError: the port or the home is in use; nothing was started.
    """
    check(settings)
    signal.signal(signal.SIGTERM, _interrupt)
    notes = Console(stderr=True) if as_json else console
    job: Job | None = None
    try:
        with _server(settings) as server, Client(settings.home, settings.url) as client:
            notes.print("Starting the server and its local Ray cluster ...")
            _wait_until_ready(server, client, settings)
            job = client.submit(document)
            notes.print(f"Dashboard: {client.link('/jobs/' + job['id'])}", soft_wrap=True, highlight=False)
            try:
                job = watch(client, job["id"], console, as_json=as_json)
            except BaseException:
                job = _cancel(client, job["id"], notes)
                raise
            stays_up = sys.stdin.isatty() and console.is_terminal
            if stays_up:
                notes.print("The dashboard stays up until you press Ctrl-C.")
            model = RunFolder(settings.run_folder(job["id"])).export
            if read_export(model) is not None:
                notes.print(f"Fill in a word:\n{load_command(model)}", markup=False, highlight=False, soft_wrap=True)
            if stays_up:
                with suppress(KeyboardInterrupt):
                    server.wait()
    finally:
        # A cluster at work outlives its server, but not the demonstration.
        if job is None or job["finished_at"] is None:
            ClusterProcess(settings.ray).stop()
    return job


def load_command(model: Path) -> str:
    """Return the shell command in which an exported model fills in a word."""
    fill = f'pipeline("fill-mask", {json.dumps(str(model))})("{_SENTENCE}")'
    program = f'from transformers import pipeline; print(*(each["sequence"] for each in {fill}), sep="; ")'
    return shlex.join([sys.executable, "-c", program])


def check(settings: Settings) -> None:
    """Make the home; refuse one that cannot be made or is in use, and a port that is.

    Raises:
        DemoError: says by whom, and what to do.
    """
    with Client(settings.home) as client:
        if client.answers("/healthz"):
            raise DemoError(
                f"a bigbatch server for {settings.home} is already running at {client.url}. Submit the job to it with "
                "`bigbatch submit configs/demo.yaml --watch`, or stop that server first."
            )
    found = obstacle(settings.host, settings.port)
    if found is not None:
        other = settings.port % 65_535 + 1
        raise DemoError(
            f"port {settings.port} on {settings.host} is {found}. Choose another port: "
            f"`make demo PORT={other}` or `bigbatch demo --port {other}`; or another address with --host."
        )
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise DemoError(
            f"{settings.home} cannot be written ({error.strerror}); choose another folder with --home"
        ) from None


def server_command(settings: Settings) -> list[str]:
    """Return the command that serves these settings."""
    options = {"--home": settings.home, "--host": settings.host, "--port": settings.port}
    files = {"--tls-cert": settings.tls_cert, "--tls-key": settings.tls_key}
    options |= {name: file for name, file in files.items() if file is not None}
    # -P: a folder named server where the user stands is not the package.
    command = [sys.executable, "-P", "-m", "server", "serve"]
    switches = ["--without-tls"] if settings.without_tls else []
    return [*command, *(str(part) for pair in options.items() for part in pair), *switches]


@contextmanager
def _server(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run `bigbatch serve`; what it prints goes to server.log in its home."""
    with _log(settings).open("wb") as log:
        # A session of its own, else Ctrl-C would stop the server before the job could be cancelled.
        server = subprocess.Popen(
            server_command(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield server
        finally:
            _stop(server)


def _log(settings: Settings) -> Path:
    return settings.home / "server.log"


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _wait_until_ready(server: subprocess.Popen[bytes], client: Client, settings: Settings) -> None:
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        client.reconnect()  # a server on a new home makes its token first
        if client.answers("/readyz"):
            return
        time.sleep(0.2)
    tail = "\n".join(_log(settings).read_text(errors="replace").splitlines()[-15:])
    how = "is not ready" if server.poll() is None else "has ended"
    raise ClientError(f"the server {how}; the end of {_log(settings)}:\n{tail}")


def _cancel(client: Client, job_id: str, notes: Console) -> Job | None:
    """Cancel the job and wait for its end; return None if the server does not answer."""
    notes.print("\nCancelling the job and stopping the server ...")
    deadline = time.monotonic() + STOP_S
    with suppress(ClientError):  # what went wrong first is what gets reported
        job = client.cancel(job_id)
        while job["finished_at"] is None and time.monotonic() < deadline:
            time.sleep(0.5)
            job = client.job(job_id)
        return job
    return None


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
