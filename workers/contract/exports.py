"""What a finished export is: a folder that `transformers` loads, with a manifest that is written last."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from .manifests import MANIFEST, FileName, StoredFile, check_format

EXPORT_FORMAT = 1
"""Of an export's manifest; raise it when an older version could no longer read it."""


class ExportManifest(BaseModel):
    """`manifest.json` of an export: which weights it holds, and in which files."""

    model_config = ConfigDict(frozen=True)

    format: StrictInt = EXPORT_FORMAT
    name: str
    """Of the job."""
    step: Annotated[int, Field(ge=0)]
    attempt: Annotated[int, Field(ge=0)]
    """Which attempt wrote the checkpoint of that step."""
    files: dict[FileName, StoredFile]
    """All but this one."""

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files.values())


def read_export(folder: Path) -> ExportManifest | None:
    """Read what an export holds; None where the folder is no finished one.

    Raises:
        UnknownFormatError: a newer version wrote it.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        check_format(path, content, "format", EXPORT_FORMAT)
        return ExportManifest.model_validate_json(content)
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
