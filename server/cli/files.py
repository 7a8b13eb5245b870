"""Job files, read and checked on this machine before a server or a worker sees them."""

from pathlib import Path
from typing import Any

from workers.contract.documents import parse_spec, read_file
from workers.contract.spec.job import JobSpec


def read_job(file: Path, name: str | None = None) -> tuple[dict[str, Any], JobSpec]:
    """Read a job file, with another name if one is given; relative paths in it start at its folder.

    Raises:
        SpecError: it cannot be read, or is not a valid specification.
    """
    document = read_file(file)
    if name is not None and isinstance(document, dict):
        document["name"] = name
    return document, parse_spec(document)
