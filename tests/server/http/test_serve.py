import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from server.client import Client
from server.cluster.process import ClusterProcess
from server.http.serve import serve
from server.settings import Settings
from server.storage.database import Database
from tests.certificates import make_certificate
from tests.serving import TINY, free_port, status
from tests.workers.object_store import serving as serving_s3
from workers.contract.records import RunStatus, StatusRecord
from workers.contract.run.folder import RunFolder
from workers.contract.tls import trusting_only
from workers.training.reporting.reporter import Reporter

SERVE = (
    "import sys; from pathlib import Path; from server.http.serve import serve; from server.settings import Settings; "
)


@contextmanager
def _server(home: Path, port: int, more: str = "") -> Iterator[subprocess.Popen[str]]:
    code = f"{SERVE}sys.exit(serve(Settings(Path({str(home)!r}), port={port}{more})))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as it:
        try:
            yield it
        finally:
            it.terminate()
            it.wait(60)
            ClusterProcess(home / "ray").stop()


def _wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_taken_port_is_named_before_anything_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert serve(Settings(tmp_path, port=port)) == 2
    said = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1 is taken by " in said
    assert f"(process {os.getpid()})" in said
    assert "--port" in said
    assert not (tmp_path / "bigbatch.db").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_server_is_found_by_its_file_and_stops_with_open_streams_and_without_a_trace(
    tmp_path: Path, how: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with _server(tmp_path, port) as process:
        _wait_for(tmp_path / "server.json")
        found = json.loads((tmp_path / "server.json").read_text())
        assert found == {"url": f"http://127.0.0.1:{port}", "pid": process.pid}
        token = (tmp_path / "admin.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        # The server starts Ray meanwhile, which takes all of a small machine for some seconds.
        events = httpx.stream("GET", f"{found['url']}/v1/events", headers=headers, trust_env=False, timeout=60)
        with events as answer:
            stream = answer.iter_raw()
            assert next(stream).startswith(b":")
            assert serve(Settings(tmp_path, port=free_port())) == 2  # a home has one server
            assert "another server uses" in capsys.readouterr().err
            begun = time.monotonic()
            process.send_signal(how)
            assert list(stream) == []
        said, _ = process.communicate(timeout=60)
        assert time.monotonic() - begun < 20
        assert process.returncode == 0, said
    assert f"Dashboard: http://127.0.0.1:{port}/\n" in said
    assert f"bigbatch token link --home {tmp_path}" in said
    assert token not in said
    assert not (tmp_path / "server.json").exists()
    marked = [one for one in psutil.process_iter() if _home_of(one) == str(tmp_path / "ray")]
    assert marked == []


def test_with_log_json_all_that_is_logged_is_json_and_an_error_names_the_job_that_was_asked_for(tmp_path: Path) -> None:
    port = free_port()
    code = (
        f"{SERVE}from server.storage.jobs import Store; Store.get = lambda self, job_id: 1 / 0; "
        f"sys.exit(serve(Settings(Path({str(tmp_path)!r}), port={port}, log_json=True, "
        "ray_address='http://127.0.0.1:9')))"  # where nothing listens
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            _wait_for(tmp_path / "server.json")
            token = (tmp_path / "admin.token").read_text().strip()
            headers = {"Authorization": f"Bearer {token}"}
            asked = [httpx.get(f"http://127.0.0.1:{port}/v1/jobs{job}", headers=headers) for job in ("/k3v9x2", "")]
        finally:
            server.terminate()
        _, said = server.communicate(timeout=60)
    assert [answer.status_code for answer in asked] == [500, 200]
    lines = [json.loads(line) for line in said.splitlines()]
    assert {"server.scheduler", "server.storage.database", "uvicorn.error"} <= {line["logger"] for line in lines}
    (failed,) = (line for line in lines if line["level"] == "error")
    assert failed["job_id"] == "k3v9x2"
    assert failed["exception"].endswith("ZeroDivisionError: division by zero")
    assert [line for line in lines if "job_id" in line] == [failed]
    assert token not in said


def test_with_log_json_the_reason_why_it_cannot_start_is_json(tmp_path: Path) -> None:
    code = f"{SERVE}sys.exit(serve(Settings(Path({str(tmp_path)!r}), host='0.0.0.0', log_json=True)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    line = json.loads(done.stderr)
    assert line["level"] == "critical"
    assert "--tls-cert" in line["event"]


def _home_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("BIGBATCH_CLUSTER") if process.pid != os.getpid() else None
    except psutil.Error:
        return None


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("s3://no-such/runs", "s3://no-such/runs/check-of-bigbatch-serve: .*check the name of the bucket"),
        ("runs", "--storage = 'runs': is not the URL of a folder"),
    ],
)
def test_a_storage_that_cannot_be_written_is_told_of_before_anything_is_started(
    storage: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving_s3():
        assert serve(Settings(tmp_path / "home", storage=storage)) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_made_is_named_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"
    assert serve(Settings(home)) == 2
    assert f"{home} cannot be written (Not a directory); choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["admin.token", "ray/ray.token"])
def test_an_empty_token_is_refused_before_anything_is_started(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / name).touch()
    assert serve(Settings(tmp_path, port=free_port())) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / name} holds 0 characters" in said
    assert "remove the file, and a new token is made" in said
    assert not (tmp_path / "bigbatch.db").exists()


def _garbage(home: Path) -> None:
    (home / "bigbatch.db").write_bytes(b"no database at all" * 1000)


def _newer(home: Path) -> None:
    Database(home / "bigbatch.db").close()
    with closing(sqlite3.connect(home / "bigbatch.db")) as db, db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")


def _folder(home: Path) -> None:
    (home / "bigbatch.db").mkdir()


def _token_that_is_a_folder(home: Path) -> None:
    (home / "server.lock").mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_garbage, "bigbatch.db is not a database"),
        (_newer, "written by a newer version of bigbatch"),
        (_folder, "bigbatch.db cannot be opened"),
        (_token_that_is_a_folder, "cannot be written"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_home_that_cannot_be_used_is_told_of_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], said: str, *, as_json: bool
) -> None:
    spoil(tmp_path)
    assert serve(Settings(tmp_path, port=free_port()), as_json=as_json) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert "--home" in told or "check" in told


@pytest.mark.parametrize("limit_bytes", [0, 20_000])
def test_a_disk_that_takes_no_more_is_told_of_in_one_line(tmp_path: Path, limit_bytes: int) -> None:
    """A limit on the size of files stands for the disk, first for the token's file and then for the database's."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes})); "
    code = f"{limit}{SERVE}sys.exit(serve(Settings(Path({str(tmp_path)!r}), port={free_port()})))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr
    last = found.stderr.splitlines()[-1]
    assert last.startswith("bigbatch serve: ")
    assert "space" in last


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::"])  # noqa: S104 -- refused before anything listens
def test_other_machines_are_not_served_in_the_clear_unless_that_is_said(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(Settings(tmp_path / "home", host=host)) == 2
    said = capsys.readouterr().err
    assert f"--host {host} lets other machines reach this server" in said
    assert "--tls-cert and --tls-key" in said
    assert "--without-tls" in said
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"root_path": "/jobs"}, "--root-path '/jobs' cannot be used"),
        ({"root_path": "/a/../b"}, "--root-path '/a/../b' cannot be used"),
        ({"root_path": "/a b"}, "--root-path '/a b' cannot be used"),
        ({"root_path": "//a//b"}, "--root-path '/a//b' cannot be used"),
        ({"trusted_proxies": ("*",)}, "--trusted-proxy '*' cannot be used"),
        ({"trusted_proxies": ("127.0.0.1", "10.0.0.1/8")}, "--trusted-proxy '10.0.0.1/8' cannot be used"),
    ],
)
def test_options_about_a_proxy_that_cannot_be_meant_are_refused_with_an_example(
    option: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(Settings(tmp_path / "home", **option)) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "such as" in told
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("fault", ["no key", "key of another", "no certificate", "only a key"])
def test_files_that_are_no_certificate_with_its_key_are_named_before_anything_is_started(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = make_certificate(tmp_path)
    _, other = make_certificate(tmp_path, "other")
    files = {"no key": (cert, None), "key of another": (cert, other), "no certificate": (key, key)}
    tls_cert, tls_key = files.get(fault, (None, key))
    assert serve(Settings(tmp_path / "home", tls_cert=tls_cert, tls_key=tls_key)) == 2
    said = capsys.readouterr().err
    assert "--tls-cert" in said
    assert str(tls_cert or "--tls-key") in said
    assert not (tmp_path / "home").exists()


def test_with_a_certificate_commands_browsers_and_runs_speak_tls(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    cert, key = make_certificate(tmp_path)
    with _server(home, port, f", tls_cert=Path({str(cert)!r}), tls_key=Path({str(key)!r})"):
        _wait_for(home / "server.json")
        with Client(home) as client:  # no name in the certificate is that of the address
            assert client.url == f"https://127.0.0.1:{port}"
            job_id = client.submit(TINY)["id"]
            link = client.link()
        folder = RunFolder(home / "runs" / job_id)
        control = folder.control()
        assert control.url == f"https://127.0.0.1:{port}/v1/jobs/{job_id}/events"
        assert control.certificate == cert.read_text()
        answer = httpx.get(link, verify=trusting_only(control.certificate), trust_env=False)
        assert "Secure" in answer.headers["Set-Cookie"]
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            httpx.get(control.url, trust_env=False)
        _push_one(folder)
        with Client(home) as client:
            assert client.job(job_id)["status"] == "RUNNING"


def _push_one(folder: RunFolder) -> None:
    """Report that the run has begun, as a run does it."""
    reporter = Reporter(folder, attempt=1)
    reporter.emit(StatusRecord(seq=0, time=datetime.now(UTC), status=RunStatus.RUNNING, attempt=1, world_size=1))
    reporter.close()


def test_a_reader_that_takes_nothing_is_dropped_and_what_it_did_not_take_is_there_for_the_next(tmp_path: Path) -> None:
    port = free_port()
    settings = Settings(tmp_path, port=port, ray_address="http://127.0.0.1:9")
    code = (
        "import sys; from pathlib import Path; from server.http import serve; from server.settings import Settings; "
        f"serve._STALLED_S = 2; sys.exit(serve.serve(Settings(Path({str(tmp_path)!r}), port={port}, "
        "ray_address='http://127.0.0.1:9')))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        _wait_for(settings.server_file)
        admin = {"Authorization": f"Bearer {settings.admin_token.read_text().strip()}"}
        with httpx.Client(base_url=settings.url, trust_env=False, headers=admin, timeout=60) as http:
            job_id = http.post("/v1/jobs", json=TINY).raise_for_status().json()["id"]
            control = json.loads((settings.run_folder(job_id) / "control.json").read_text())
            when = {"kind": "log", "time": "2026-01-31T12:00:00Z"}
            lines = [when | {"seq": number, "text": "x" * 500_000} for number in range(1, 41)]
            worker = {"Authorization": f"Bearer {control['token']}"}
            for line in lines:
                http.post(control["url"], json={"records": [line]}, headers=worker).raise_for_status()
            path = f"/v1/jobs/{job_id}/events"
            with socket.create_connection(("127.0.0.1", port)) as stalled:
                stalled.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{_header(admin)}\r\n\r\n".encode())
                stalled.recv(1)
                ours = stalled.getsockname()[1]
                _wait_until_gone(server.pid, ours)
            http.post(control["url"], json={"records": [status(41, "SUCCEEDED")]}, headers=worker).raise_for_status()
            assert http.get(path).text.count("event: log") == 40
        server.terminate()


def _header(headers: dict[str, str]) -> str:
    return "\r\n".join(f"{name}: {value}" for name, value in headers.items())


def _wait_until_gone(pid: int, port: int) -> None:
    deadline = time.monotonic() + 60
    while any(each.raddr and each.raddr.port == port for each in psutil.Process(pid).net_connections("tcp")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
