"""How long a client may take to send a request, how much waits for one that reads slowly, and how many there may be."""

import asyncio
import resource
import socket

from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.errors import LateRequestError, ServerError, TooManyConnectionsError
from server.http.problems import problem_response

HEAD_S = 15.0
"""How long the first line and the headers of a request may take, from the first byte or from the connection's begin."""
MOST_CONNECTIONS = 2000
"""Connections at once; each open page and each `bigbatch watch` holds one."""
_UNSENT_BYTES = 2**14
"""For each connection, so much waits here, and as much in the kernel, until the client takes what was sent before. By
default these would be 64 KiB and some megabytes."""
_FILES = MOST_CONNECTIONS + 1000


class PatientProtocol(H11Protocol):  # type: ignore[misc] # mypy is told to skip uvicorn
    """uvicorn's HTTP/1.1, which by itself waits for ever for a request that was begun."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Count a new connection, and refuse it where there are too many."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # not on every system
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(TooManyConnectionsError(f"the server has {MOST_CONNECTIONS:,} connections: try again later"))
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Read what came; a request that is whole, or whose body is awaited by a route, ends the wait."""
        if self._deadline is None and not self._is_answering:
            self._wait()
        super().data_received(data)
        if self._is_answering:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._refuse(LateRequestError(f"no whole request came within {HEAD_S:g} s: send it at once"))

    def _refuse(self, error: ServerError) -> None:
        if not self.transport.is_closing():
            self.transport.write(_as_bytes(problem_response(error)))
            self.transport.close()


def allow_files() -> None:
    """Let this process have as many files open as it may have connections, as far as the system allows."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _as_bytes(answer: Response) -> bytes:
    """Write an answer as it goes over the wire, where no application is there to send it."""
    headers: list[tuple[bytes, bytes]] = [*answer.raw_headers, (b"connection", b"close")]
    lines = [b"HTTP/1.1 %d " % answer.status_code, *(b"%b: %b" % each for each in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(answer.body)
