"""The sha256 of text files, computed again only where path, size or time of change is another."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from workers.contract.files import write_private
from workers.contract.manifests import HashedText
from workers.contract.sources import CorpusError

_SETTLED_NS = 2 * 10**9
"""A file that changed this shortly before it was read may change again without another time stamp."""


class Hashed(BaseModel):
    """A file as it was when it was hashed."""

    model_config = ConfigDict(frozen=True)

    path: str
    """With backslashes for what is not UTF-8."""
    bytes: int
    modified_ns: int
    changed_ns: int
    """Of the inode: also set where a copy takes over the time stamp of its original."""
    sha256: str
    is_settled: bool


_KNOWN = TypeAdapter(list[Hashed])


def hash_texts(files: Sequence[Path], folder: Path) -> list[HashedText]:
    """Return the hash of each file; what was computed for these paths is kept in `folder`."""
    paths = [_name(file) for file in files]
    index = folder / f"texts-{hashlib.sha256(json.dumps(paths).encode()).hexdigest()[:16]}.json"
    known = {hashed.path: hashed for hashed in _read(index)}
    now = [_hash(file, known.get(path)) for file, path in zip(files, paths, strict=True)]
    if now != list(known.values()):
        write_private(index, _KNOWN.dump_json(now, indent=1).decode())
    return [HashedText(bytes=hashed.bytes, sha256=hashed.sha256) for hashed in now]


def _hash(path: Path, known: Hashed | None) -> Hashed:
    try:
        with path.open("rb") as stream:
            status, now_ns = path.stat(), time.time_ns()
            state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if known and known.is_settled and state == (known.bytes, known.modified_ns, known.changed_ns):
                return known
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); correct data.corpus or data.vocab") from error
    is_settled = max(status.st_mtime_ns, status.st_ctime_ns) < now_ns - _SETTLED_NS
    return Hashed(
        path=_name(path),
        bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
        sha256=sha256,
        is_settled=is_settled,
    )


def _name(path: Path) -> str:
    return os.fsencode(path.absolute()).decode(errors="backslashreplace")


def _read(index: Path) -> list[Hashed]:
    try:
        return _KNOWN.validate_json(index.read_bytes())
    except (OSError, ValidationError):  # not there, or written by another version: hashed again
        return []
