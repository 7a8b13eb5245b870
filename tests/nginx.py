"""The nginx of this system as a reverse proxy, set up as docs/operations.md has it."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.settings import Settings
from tests.certificates import make_certificate
from tests.serving import free_port

PAGE = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
_START_S = 30
_MAIN = """daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
access_log off; {temporary}
{server}
}}
"""


@contextmanager
def nginx(folder: Path, behind: Settings, *, removes_path: bool = False) -> Iterator[str]:
    """Run nginx in front of a server; yield the address of the root path, whose certificate `localhost.crt` is for."""
    port = free_port()
    with subprocess.Popen([_nginx(), "-c", str(_configuration(folder, port, behind, removes_path=removes_path))]) as it:
        try:
            _wait_for(port, it, folder)
            yield f"https://localhost:{port}{behind.root_path}"
        finally:
            it.terminate()


def _nginx() -> str:
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    return found or pytest.fail("nginx is not on the PATH; on Debian or Ubuntu: apt-get install nginx")


def _configuration(folder: Path, port: int, behind: Settings, *, removes_path: bool) -> Path:
    """Write the block of the page with our ports and files in the place of its own."""
    (block,) = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
    certificate, key = make_certificate(folder, "localhost")
    ours = {
        "443 ssl": f"127.0.0.1:{port} ssl",
        "/etc/ssl/trainer.crt": str(certificate),
        "/etc/ssl/trainer.key": str(key),
        "http://127.0.0.1:8000": f"http://127.0.0.1:{behind.port}{'/' if removes_path else ''}",
    }
    for written, meant in ours.items():
        assert written in block
        block = block.replace(written, meant)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    file = folder / "nginx.conf"
    file.write_text(_MAIN.format(folder=folder, temporary=temporary, server=block))
    return file


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        assert process.poll() is None, (folder / "error.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return
