"""A network between worker and server that can be cut."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Relay:
    """Passes bytes on to a port of this machine; while it is cut, it accepts connections and passes nothing on.

    What was sent during a cut arrives after it, as it does where packets are sent again. By then the sender may have
    given up and have sent the same on another connection.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._is_whole = threading.Event()
        self._is_whole.set()
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.passed = 0
        """How many bytes were passed on, in both directions."""
        self._start(self._accept)

    def cut(self) -> None:
        self._is_whole.clear()

    def restore(self) -> None:
        self._is_whole.set()

    def close(self) -> None:
        self._is_whole.set()
        for each in (self._listening, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the relay was closed
            while True:
                here, _ = self._listening.accept()
                there = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [here, there]
                self._start(self._pass_on, here, there)
                self._start(self._pass_on, there, here)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # either end has gone
            while data := source.recv(2**16):
                self._is_whole.wait()
                target.sendall(data)
                self.passed += len(data)
            self._is_whole.wait()
            target.shutdown(socket.SHUT_WR)

    def _start(self, run: Callable[..., None], *args: socket.socket) -> None:
        threading.Thread(target=run, args=args, daemon=True).start()
