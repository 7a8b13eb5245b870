"""Ports of this machine: which are free, and which program has the others."""

import contextlib
import errno
import random
import socket
from collections.abc import Iterator

import psutil

_NOT_OUTGOING = range(20_000, 32_768)
"""Outgoing connections begin above these by default, and Ray's workers listen on ports below them."""


def obstacle(host: str, port: int) -> str | None:
    """Say why a server could not listen there, such as `taken by NAME (process N)`; None where it could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return f"taken by {_holder(port)}" if error.errno == errno.EADDRINUSE else f"not usable: {error.strerror}"
    return None


def free_ports(count: int) -> list[int]:
    """Return different ports that nobody listens on.

    They are none of those that Linux gives to outgoing connections: another program's connection could else take one
    before the program that it is for listens there.
    """
    candidates = iter(random.sample(_NOT_OUTGOING, k=len(_NOT_OUTGOING)))
    with contextlib.ExitStack() as held:  # until the last is found, so that they differ
        return [_hold_next(candidates, held) for _ in range(count)]


def _hold_next(candidates: Iterator[int], held: contextlib.ExitStack) -> int:
    for port in candidates:
        probe = held.enter_context(socket.socket())
        with contextlib.suppress(OSError):  # somebody listens there
            probe.bind(("", port))
            return port
    first, last = _NOT_OUTGOING[0], _NOT_OUTGOING[-1]
    raise OSError(f"all ports from {first} to {last} are taken: end some of the programs that listen on them")


def _holder(port: int) -> str:
    """Name the process that listens on a port, as far as this user may see it."""
    try:
        pids = [c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid]
        return f"{psutil.Process(pids[0]).name()} (process {pids[0]})" if pids else "another program"
    except psutil.Error:
        return "another program"
