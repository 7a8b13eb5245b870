"""The kinds of fields that records are made of: counts, text, times, and vectors of float32."""

import base64
import binascii
import math
import sys
from array import array
from datetime import MAXYEAR, UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from .problems import counted, fault

FLOAT32_BYTES = 4
MOST = 2**53 - 1
"""The greatest integer that databases and floating-point numbers hold exactly, with all below it."""

Count = Annotated[int, Field(ge=0, le=MOST)]


def _packed(value: object) -> object:
    """Return the bytes behind base64, or behind a list of numbers, as older versions wrote them."""
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise fault(f"is not base64 ({error})", "send the bytes of float32 numbers as base64") from None
    if isinstance(value, list):
        try:
            numbers = array("f", (math.nan if number is None else number for number in value))
        except (TypeError, OverflowError) as error:
            raise fault(f"is not a list of numbers and nulls ({error})", "send numbers and nulls alone") from None
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers.tobytes()
    return value


def _whole_numbers(packed: bytes) -> bytes:
    if len(packed) % FLOAT32_BYTES:
        problem = f"has {counted(len(packed), 'byte')}, and a float32 has four"
        raise fault(problem, "send four bytes for each tensor")
    return packed


Float32s = Annotated[
    bytes,
    BeforeValidator(_packed),
    AfterValidator(_whole_numbers),
    PlainSerializer(lambda packed: base64.b64encode(packed).decode(), when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""float32[T], little-endian, one per tensor; base64 in JSON. A number that is not finite stands as NaN or infinity."""


def _printable(value: object) -> object:
    """Write out what UTF-8 cannot encode: the bytes of a file's name that were in another encoding."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_printable)]


def _has_utc(time: datetime) -> datetime:
    try:
        if time.astimezone(UTC).year < MAXYEAR:  # a deadline a little later is still a time
            return time
    except OverflowError:
        pass
    raise fault("is outside the years 1 to 9998 in UTC", "write a time such as 2026-01-31T12:00:00Z")


Time = Annotated[AwareDatetime, Field(strict=False), AfterValidator(_has_utc)]
"""An aware time that UTC can write."""
