"""From the loop to the control plane, without the loop ever waiting.

`emit` appends a record to the journal in the run folder: from then on it cannot be lost. The file is also the
queue: a background thread pushes what the control plane has not acknowledged, in order, and rewinds when it is told
to. The reply brings back the command. An unreachable control plane costs nothing but the wait at the end.
"""

import logging
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Self

import httpx
from pydantic import ValidationError

from workers.contract.push import Command, ControlPlane, PushReply, Refusal
from workers.contract.records import AnyRecord, Record
from workers.contract.run.folder import RunFolder
from workers.contract.run.journal import Journal
from workers.contract.run.lock import SupersededError
from workers.contract.tls import trusting_only

from .summary import Summary

_PUSH_EVERY_S = 0.25
_HEARTBEAT_S = 2.0
_LONGEST_WAIT_S = 5.0
_REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY)

log = logging.getLogger(__name__)
# Ray logs what is worth an INFO. A line for each push would bury everything else.
logging.getLogger("httpx").setLevel(logging.WARNING)


class Reporter:
    """Rank 0's voice: writes records, pushes them, and hears commands.

    Attributes:
        summary: What the records say of the run so far.
    """

    def __init__(
        self, folder: RunFolder, attempt: int = 1, *, on_record: Callable[[Record], None] | None = None
    ) -> None:
        self.summary = Summary()
        self._journal = folder.open_journal(attempt)
        self._on_record = on_record
        self._pusher = Pusher(folder, self._journal, attempt) if folder.has_control() else None

    @property
    def command(self) -> Command:
        """What the control plane asks for and has not got yet."""
        return self._pusher.command if self._pusher else Command.NONE

    def begin_checkpoint(self) -> int:
        """Return the number of the last checkpoint that was asked for: the one that now begins is what was meant."""
        return self._pusher.begin_checkpoint() if self._pusher else 0

    def emit(self, record: AnyRecord) -> None:
        """Number one record, write it ahead and have it pushed soon.

        Raises:
            SupersededError: a newer attempt has begun, and this one must end.
        """
        written = self._journal.append(record)
        self.summary.take(written)
        if self._on_record:
            self._on_record(written)

    def sync(self) -> None:
        """Have every record so far survive a loss of power."""
        self._journal.sync()

    def close(self, *, wait_s: float = 10.0) -> None:
        """Give the control plane `wait_s` seconds to take the rest; it can read the file itself afterwards."""
        if self._pusher:
            self._pusher.close(self._journal.last_seq, wait_s)
        self._journal.close()


class Pusher:
    """The background thread: sends the lines of the journal after the acknowledged number."""

    def __init__(self, folder: RunFolder, journal: Journal, attempt: int) -> None:
        self._acknowledged = -1  # unknown until the first reply
        self._reply = PushReply(acknowledged=-1)
        self._request_begun = 0  # the last checkpoint that was asked for and has been begun
        self._folder, self._journal, self._attempt = folder, journal, attempt
        self._singly_until = 0  # up to this number, records are sent one by one to find the one that is refused
        self._replaced = 0  # the last record that an alert took the place of
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    @property
    def command(self) -> Command:
        """What is asked for; a checkpoint only until it is begun, though the replies repeat it until it is reported."""
        reply = self._reply
        is_begun = reply.command is Command.CHECKPOINT and reply.request <= self._request_begun
        return Command.NONE if is_begun else reply.command

    def begin_checkpoint(self) -> int:
        """Return the number of the last checkpoint that was asked for; it is not asked for again."""
        self._request_begun = self._reply.request
        return self._request_begun

    def close(self, last_seq: int, wait_s: float) -> None:
        """Wait until `last_seq` is acknowledged, at most `wait_s` seconds, and end the thread."""
        deadline = time.monotonic() + wait_s
        while self._acknowledged < last_seq and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        wait_s, last_push = _PUSH_EVERY_S, 0.0
        with _Line() as line:
            while not self._stop.wait(wait_s):
                try:
                    body = self._next_lines()
                    if not body and time.monotonic() - last_push < _HEARTBEAT_S:
                        continue
                    self._push(line, body)
                    wait_s, last_push = _PUSH_EVERY_S, time.monotonic()
                except (httpx.HTTPError, httpx.InvalidURL, OSError, ValidationError) as error:
                    if wait_s == _PUSH_EVERY_S:
                        log.warning("the control plane does not take records, training goes on: %s", error)
                    wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                except (SupersededError, _RefusedForGoodError) as error:
                    log.warning("records are no longer pushed: %s", error)
                    return

    def _next_lines(self) -> list[bytes]:
        if self._acknowledged < 0:
            return []
        lines = self._journal.after(self._acknowledged)
        if lines:
            self._journal.sync()  # the control plane must not know more than the journal does after a loss of power
        return lines[:1] if self._acknowledged < self._singly_until else lines

    def _push(self, line: "_Line", lines: list[bytes]) -> None:
        control = self._folder.control()
        response = line.to(control).post(
            control.url,
            content=b'{"attempt":%d,"records":[%b]}' % (self._attempt, b",".join(lines)),
            headers={"Authorization": f"Bearer {control.token}", "Content-Type": "application/json"},
        )
        if lines and response.status_code in _REFUSALS:
            self._give_way(response, len(lines))
            return
        response.raise_for_status()
        self._reply = PushReply.model_validate_json(response.content)
        self._acknowledged = self._reply.acknowledged

    def _give_way(self, response: httpx.Response, count: int) -> None:
        """Replace the record that was refused; where the reply does not name it, send the next ones singly."""
        first, last = self._acknowledged + 1, self._acknowledged + count
        refusal = _refusal(response)
        seq = first if count == 1 else refusal.seq
        if seq is None or not first <= seq <= last:
            self._singly_until = last
            return
        reason = f"the control plane refused it with {response.status_code}: {refusal.detail[:500]}"
        if seq <= self._replaced:
            raise _RefusedForGoodError(f"the alert in the place of record {seq} is refused, too; {reason}")
        log.warning("record %d is replaced by an alert: %s", seq, reason)
        self._journal.reject(seq, reason)
        self._replaced = seq


class _Line:
    """The connection to the control plane, made anew when the server comes back with another certificate."""

    def __init__(self) -> None:
        self._certificate: str | None = None
        self._client = httpx.Client(timeout=10.0, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def to(self, control: ControlPlane) -> httpx.Client:
        """Return a client for the server that `control` names."""
        if control.certificate != self._certificate:
            self._client.close()
            trusted = True if control.certificate is None else trusting_only(control.certificate)
            self._client = httpx.Client(timeout=10.0, trust_env=False, verify=trusted)
            self._certificate = control.certificate
        return self._client


class _RefusedForGoodError(Exception):
    """Nothing that could be sent is taken."""


def _refusal(response: httpx.Response) -> Refusal:
    try:
        return Refusal.model_validate_json(response.content)
    except ValidationError:
        return Refusal(detail=response.text)
