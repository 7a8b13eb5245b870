"""Server-sent events, read from whatever pieces of text the network delivers."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .errors import JsonObject


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event. `id` is the number of the record, None where the event is not one."""

    name: str
    id: int | None
    data: JsonObject


def parse_events(chunks: Iterable[str]) -> Iterator[Event]:
    """Read server-sent events from text that arrives in arbitrary pieces; comments are passed over."""
    fields: dict[str, str] = {}
    for line in _lines(chunks):
        if line and not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = fields.get(name, "") + value.removeprefix(" ")
        elif not line and fields:
            number = fields.get("id", "")
            data = json.loads(fields.get("data") or "{}")
            yield Event(fields.get("event", "message"), int(number) if number.isdigit() else None, data or {})
            fields = {}


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    rest = ""  # str.splitlines would also split at U+2028, which JSON may hold
    for chunk in chunks:
        *whole, rest = (rest + chunk).split("\n")
        yield from (line.removesuffix("\r") for line in whole)
