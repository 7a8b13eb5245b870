"""The kinds of fields that records are made of."""

import base64
import math
import os
import struct
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from workers.contract.fields import MOST, Count, Float32s, Text, Time

FLOAT32S: TypeAdapter[bytes] = TypeAdapter(Float32s)
COUNT: TypeAdapter[int] = TypeAdapter(Count)
TEXT: TypeAdapter[str] = TypeAdapter(Text)
TIME: TypeAdapter[Any] = TypeAdapter(Time)


def test_numbers_are_base64_of_little_endian_float32_in_json_and_older_versions_wrote_a_list() -> None:
    packed = struct.pack("<3f", 0.123, math.nan, math.inf)
    assert FLOAT32S.dump_json(packed) == b'"' + base64.b64encode(packed) + b'"'
    assert FLOAT32S.validate_json(FLOAT32S.dump_json(packed)) == packed
    assert FLOAT32S.validate_python([0.123, None, math.inf]) == packed


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("no base64", "is not base64"),
        (base64.b64encode(b"12345").decode(), "has 5 bytes, and a float32 has four"),
        ([1.0, "x"], "is not a list of numbers"),
    ],
)
def test_what_is_no_vector_of_float32_is_refused_with_what_it_is(value: object, fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        FLOAT32S.validate_python(value)


@pytest.mark.parametrize("value", [-1, MOST + 1, 0.5])
def test_a_count_is_whole_and_small_enough_for_every_database(value: float) -> None:
    assert COUNT.validate_python(MOST) == MOST
    with pytest.raises(ValidationError):
        COUNT.validate_python(value)


def test_text_that_no_file_could_hold_is_written_out() -> None:
    assert TEXT.validate_python(os.fsdecode(b"caf\xe9.txt")) == "caf\\udce9.txt"


@pytest.mark.parametrize("time", ["9998-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_a_time_that_utc_cannot_write_is_refused(time: str) -> None:
    assert TIME.validate_python(f"{time[:-6]}Z").tzinfo is not None
    with pytest.raises(ValidationError, match="is outside the years 1 to 9998 in UTC"):
        TIME.validate_python(time)
