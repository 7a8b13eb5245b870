"""The server's log: readable lines or JSON lines, with the id of the job that a line is about, and without secrets."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog.typing import EventDict, Processor

_SECRETS = re.compile(
    r"(?i)([?&;][\w.-]*(?:token|key|secret|signature|password|credential)[\w.-]*=)[^&;#\s\"'<>]+"  # of a URL's query
    r"|(\bbigbatch_)[\w-]{16,}"  # the tokens that this server makes
    r"|(\bbearer\s+)[\w.~+/=-]{16,}"
    r"|(://[^/\s:@]*:)[^/\s@]+(?=@)"  # the password in http://user:password@host
)
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), 127)}
_QUIET = ("alembic", "httpx")


def configure(*, as_json: bool) -> None:
    """Write what this process and its libraries log to the standard error stream, from INFO upwards.

    Args:
        as_json: write each line as a JSON object; otherwise lines are for people to read.
    """
    fields: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _without_secrets,
    ]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=fields,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(as_json=as_json)],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def about(job_id: str, attempt: int = 0) -> Iterator[None]:
    """Have every line that is logged inside, by libraries too, carry the job's id, and its attempt unless it is 0."""
    of_attempt = {"attempt": attempt} if attempt else {}
    with structlog.contextvars.bound_contextvars(job_id=job_id, **of_attempt):
        yield


def start_request(job_id: str | None) -> None:
    """Have every line of the request that begins here carry the id of its job, also when the request has failed.

    There is no end: the web server logs errors after the application has left them to it. Each request begins anew,
    since one that was sent before its predecessor was answered inherits the fields of that one.
    """
    structlog.contextvars.clear_contextvars()
    if job_id is not None:
        structlog.contextvars.bind_contextvars(job_id=job_id)


def _rendering(*, as_json: bool) -> list[Processor]:
    if as_json:
        return [structlog.processors.JSONRenderer(ensure_ascii=False)]
    plain = structlog.dev.ConsoleRenderer(
        colors=False, pad_event_to=0, pad_level=False, exception_formatter=structlog.dev.plain_traceback
    )
    return [_one_entry, plain]


def _without_secrets(_logger: object, _method: str, fields: EventDict) -> EventDict:
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = _SECRETS.sub(lambda found: f"{found[found.lastindex or 0]}***", value)
    return fields


def _one_entry(_logger: object, _method: str, fields: EventDict) -> EventDict:
    """Keep a message from looking like several: its further lines are indented, control characters are written out."""
    fields["event"] = fields["event"].strip().translate(_CONTROLS).replace("\n", "\n    ")
    return fields
