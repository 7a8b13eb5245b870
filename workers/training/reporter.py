"""From the loop to the control plane, without the loop ever waiting.

`emit` appends a record to `events.jsonl` in the run folder: from then on it cannot be lost. The file is also the
queue: a background thread pushes what the control plane has not acknowledged, in order, and rewinds when it is told
to. The reply brings back the command. An unreachable control plane costs nothing but the wait at the end.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
from pydantic import ValidationError

from workers.contract.journal import Journal, Lines
from workers.contract.push import Command, PushReply
from workers.contract.records import Record
from workers.contract.run_folder import RunFolder

_PUSH_EVERY_S = 0.25
_HEARTBEAT_S = 2.0
_LONGEST_WAIT_S = 5.0

log = logging.getLogger(__name__)


class Reporter:
    """Rank 0's voice: writes records, pushes them, and hears commands."""

    def __init__(self, folder: RunFolder, *, on_record: Callable[[Record], None] | None = None) -> None:
        self._journal = Journal(folder.journal)
        self._on_record = on_record
        self._pusher = Pusher(folder) if folder.has_control() else None

    @property
    def command(self) -> Command:
        """What the control plane last asked for."""
        return self._pusher.command if self._pusher else Command.NONE

    def emit(self, kind: str, **fields: Any) -> None:
        """Write one record ahead and have it pushed soon.

        Raises:
            ValidationError: the fields are not those of a `kind` record.
        """
        record = self._journal.append(kind, **fields)
        if self._on_record:
            self._on_record(record)

    def close(self, *, wait_s: float = 10.0) -> None:
        """Give the control plane `wait_s` seconds to take the rest; it can read the file itself afterwards."""
        self._journal.close()
        if self._pusher:
            self._pusher.close(self._journal.last_seq, wait_s)


class Pusher:
    """The background thread: sends the lines of `events.jsonl` behind the acknowledged number."""

    def __init__(self, folder: RunFolder) -> None:
        self.command = Command.NONE
        self._acknowledged = -1  # unknown until the first reply
        self._folder = folder
        self._lines = Lines(folder.journal)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def close(self, last_seq: int, wait_s: float) -> None:
        """Wait until `last_seq` is acknowledged, at most `wait_s` seconds, and end the thread."""
        deadline = time.monotonic() + wait_s
        while self._acknowledged < last_seq and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stop.set()
        self._thread.join(timeout=wait_s)

    def _run(self) -> None:
        wait_s, last_push = _PUSH_EVERY_S, 0.0
        with httpx.Client(timeout=10.0, trust_env=False) as client:
            while not self._stop.wait(wait_s):
                try:
                    body = self._lines.after(self._acknowledged) if self._acknowledged >= 0 else []
                    if not body and time.monotonic() - last_push < _HEARTBEAT_S:
                        continue
                    self._take(self._push(client, body))
                    wait_s, last_push = _PUSH_EVERY_S, time.monotonic()
                except (httpx.HTTPError, httpx.InvalidURL, OSError, ValidationError) as error:
                    if wait_s == _PUSH_EVERY_S:
                        log.warning("the control plane does not take records, training goes on: %s", error)
                    wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _push(self, client: httpx.Client, lines: list[bytes]) -> PushReply:
        control = self._folder.control()
        response = client.post(
            control.url,
            content=b'{"records":[' + b",".join(lines) + b"]}",
            headers={"Authorization": f"Bearer {control.token}", "Content-Type": "application/json"},
        )
        response.raise_for_status()
        return PushReply.model_validate_json(response.content)

    def _take(self, reply: PushReply) -> None:
        self._acknowledged, self.command = reply.acknowledged, reply.command
