"""Job files, read and checked on this machine before a server or a worker sees them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.contract.assignments import assign
from workers.contract.documents import parse_spec, read_file
from workers.contract.spec.job import JobSpec


def read_job(file: Path, name: str | None = None, changes: Sequence[str] = ()) -> tuple[dict[str, Any], JobSpec]:
    """Read a job file, with another name and other values where they are given; its relative paths start at its folder.

    Raises:
        SpecError: it cannot be read, or is not a valid specification.
    """
    document = assign(read_file(file), changes)
    if name is not None and isinstance(document, dict):
        document["name"] = name
    return document, parse_spec(document)
