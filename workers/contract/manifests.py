"""The small documents that say what a folder holds. Each carries the number of its format."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

FOLDER_FORMAT = 1
"""Of a run folder's layout; raise it when an older version could no longer read the folder."""
JOURNAL_FORMAT = 1
"""Of the records in `events.jsonl`; raise it when an older version could no longer read them."""


_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


class UnknownFormatError(ValueError):
    """A newer version of bigbatch wrote this."""


class RunManifest(BaseModel):
    """`run.json`: what a run folder is."""

    model_config = ConfigDict(frozen=True)

    format: int = FOLDER_FORMAT
    journal_format: int = JOURNAL_FORMAT
    identity: str | None = None
    """sha256 of the prepared corpus's manifest; null until the corpus is prepared for the first time."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """The newest attempt; 0 before the first."""


def check_format(path: Path, content: bytes, field: str, known: int) -> None:
    """Refuse a JSON object whose `field` has a higher number than this version knows, before it is read further.

    Raises:
        UnknownFormatError: says which file, and what to do.
        ValidationError: the content is not a JSON object.
    """
    found = _OBJECT.validate_json(content).get(field)
    if isinstance(found, int) and found > known:
        raise UnknownFormatError(
            f"{path} has {field} {found}, and this version of bigbatch reads up to {known}; "
            "it was written by a newer version: use that one"
        )
