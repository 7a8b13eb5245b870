"""Writes each request that changes something into the audit log before it is answered."""

import logging
import re

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message, Send

from server.callers import READING, Caller, Role
from server.storage.audit import Audit

_JOB = re.compile(r"/v1/jobs/([^/]+)")
_LONGEST, _LONGEST_ADDRESS = 300, 64
log = logging.getLogger(__name__)


class Auditor:
    """Writes down what callers changed, or tried to change.

    The pushes of runs are not written down: there is one a second from each run, and the journal of the run has them.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def watching(self, caller: Caller, request: Request, send: Send) -> Send:
        """Return what answers the request once it is written down, if it is one that changes something."""
        if request.method in READING or caller.role is Role.JOB:
            return send

        async def send_once_written(message: Message) -> None:
            if message["type"] == "http.response.start":
                location = Headers(raw=message["headers"]).get("Location", "")
                await self.write(caller, request, message["status"], location)
            await send(message)

        return send_once_written

    async def write(self, caller: Caller, request: Request, status: int, location: str = "") -> None:
        """Write down one request; where that fails, the deed is done all the same, and the server's log has it."""
        found = _JOB.match(request.url.path) or _JOB.match(location)
        action, job_id = f"{request.method} {request.url.path}"[:_LONGEST], found[1][:_LONGEST] if found else None
        address = request.client.host[:_LONGEST_ADDRESS] if request.client else None
        try:
            await run_in_threadpool(self._audit.add, caller, action, job_id, status, address)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the caller must hear that the deed was done
            lacking = f"{caller.name} ({caller.role}) sent {action!r}, answered {status}"
            log.warning("the audit log could not be written (%s) and lacks that %s", error, lacking)
