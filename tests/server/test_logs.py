import json
import subprocess
import sys
from typing import Any

import pytest

SET_UP = """
import logging, warnings
from server.logs import about, configure, start_request
configure(as_json={as_json})
log = logging.getLogger("server.somewhere")
"""


def _logged(code: str, *, as_json: bool) -> str:
    """Return what a process of its own logs: the set-up is of the whole process."""
    command = [sys.executable, "-c", SET_UP.format(as_json=as_json) + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


def _lines(code: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _logged(code, as_json=True).splitlines()]


def test_a_line_is_a_json_object_with_its_time_level_and_logger() -> None:
    (line,) = _lines("log.warning('%s of %d', 'three', 4)")
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "three of 4", "level": "warning", "logger": "server.somewhere"}


def test_what_libraries_log_for_a_job_names_the_job_and_its_attempt_and_nothing_after_it_does() -> None:
    inside, nested, after = _lines("""
with about("first", 2):
    logging.getLogger("sqlalchemy.pool").warning("a connection was lost")
    with about("second"):
        log.info("another")
log.info("none")
""")
    assert (inside["job_id"], inside["attempt"]) == ("first", 2)
    assert nested["job_id"] == "second"
    assert "job_id" not in after
    assert "attempt" not in after


def test_a_traceback_is_in_the_line_of_its_error() -> None:
    (line,) = _lines("""
try:
    raise ValueError("no such thing")
except ValueError:
    log.exception("it failed")
""")
    assert line["event"] == "it failed"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: no such thing")


def test_warnings_of_python_are_lines_of_the_log() -> None:
    (line,) = _lines("warnings.warn('this will go', UserWarning)")
    assert line["logger"] == "py.warnings"
    assert "this will go" in line["event"]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("GET http://here/?token=s3cr3t-s3cr3t-s3cr3t&page=2", "&page=2"),
        ("PUT https://bucket/key?X-Amz-Signature=s3cr3t-s3cr3t-s3cr3t", "https://bucket/key"),
        ("http://user:s3cr3t-s3cr3t-s3cr3t@head:8265", "@head:8265"),
        ("Authorization: Bearer s3cr3t-s3cr3t-s3cr3t", "Authorization"),
        ("found bigbatch_s3cr3t-s3cr3t-s3cr3t there", "there"),
    ],
)
def test_no_secret_is_in_a_message_or_a_traceback(text: str, kept: str, *, as_json: bool) -> None:
    said = _logged(
        f"""
try:
    raise OSError({text!r})
except OSError as error:
    log.exception("it failed: %s", error)
""",
        as_json=as_json,
    )
    assert "s3cr3t" not in said
    assert said.count("***") == 2
    assert said.count(kept) >= 2


def test_a_readable_line_has_the_fields_and_a_message_cannot_look_like_another_line() -> None:
    said = _logged(
        "with about('first', 2):\n    log.info('one\\n2026-01-01 [error] forged \\x1b[31m\\r')\nlog.info('two')",
        as_json=False,
    )
    first, forged, second = said.splitlines()
    assert first.endswith("[info] one")
    assert forged.startswith("    2026-01-01 [error] forged \\x1b[31m")
    assert "job_id=first" in forged
    assert "attempt=2" in forged
    assert "two" in second
    assert "job_id" not in second


def test_a_request_begins_without_the_job_of_the_one_before() -> None:
    of_job, of_none = _lines("start_request('first')\nlog.info('one')\nstart_request(None)\nlog.info('two')")
    assert of_job["job_id"] == "first"
    assert "job_id" not in of_none


def test_libraries_that_log_each_request_are_heard_from_warnings_upwards() -> None:
    code = "for name in ('httpx', 'alembic'):\n    logging.getLogger(name).info('often')\n"
    assert _lines(code) == []
