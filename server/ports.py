"""Ports of this machine: which are free, and which program has the others."""

import contextlib
import errno
import socket

import psutil


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
    """Return ports that nobody listens on; all are held until the last is found, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def _holder(port: int) -> str:
    """Name the process that listens on a port, as far as this user may see it."""
    try:
        pids = [c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid]
        return f"{psutil.Process(pids[0]).name()} (process {pids[0]})" if pids else "another program"
    except psutil.Error:
        return "another program"
