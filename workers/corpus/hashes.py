"""The sha256 of text files, computed again only where path, size or time of change is another."""

import fcntl
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from workers.contract.files import write_private
from workers.contract.manifests import HashedText
from workers.contract.sources import CorpusError
from workers.contract.text_files import State, TextFile

from .reading.text import measure

_SETTLED_NS = 2 * 10**9
"""A file that changed this shortly before it was read may change again without another time stamp."""
_LARGE_BYTES = 2**28
"""Who waits for the hash of less is not told of it."""


class Hashed(BaseModel):
    """A file as it was when it was hashed."""

    model_config = ConfigDict(frozen=True)

    path: str
    """With backslashes for what is not UTF-8."""
    bytes: int
    version: str
    """As in `State`."""
    sha256: str
    text_bytes: int
    """Size of the text, decompressed."""
    is_settled: bool

    def is_as(self, state: State) -> bool:
        """Whether the file is certainly the same as it was."""
        return self.is_settled and (self.bytes, self.version) == (state.size_bytes, state.version)


_KNOWN = TypeAdapter(list[Hashed])


def hash_texts(
    files: Sequence[TextFile], folder: Path, report: Callable[[float], None] = lambda _: None
) -> list[Hashed]:
    """Return the hash of each file; what was computed for these paths is kept in `folder`.

    Of several processes that need the same hashes, one computes them. `report` is told which part is done,
    where many bytes have to be read.

    Raises:
        CorpusError: a file cannot be read, or its compression is broken.
    """
    paths = [str(file) for file in files]
    index = folder / f"texts-{hashlib.sha256(json.dumps(paths).encode()).hexdigest()[:16]}.json"
    states = [_state(file) for file in files]
    if (known := _known(index, paths, states)) and all(known):
        return [each for each in known if each]
    folder.mkdir(parents=True, exist_ok=True)
    with locked(index.with_suffix(".lock")):
        known = _known(index, paths, states)
        hashed = list(_hash(files, known, report))
        write_private(index, _KNOWN.dump_json(hashed, indent=1).decode())
    return hashed


def content(file: TextFile, hashed: Hashed) -> HashedText:
    """Return what of a file decides over its documents."""
    return HashedText(bytes=hashed.bytes, sha256=hashed.sha256, kind=None if file.kind == "txt" else file.kind)


def _known(index: Path, paths: Sequence[str], states: Sequence[State]) -> list[Hashed | None]:
    try:
        every = {hashed.path: hashed for hashed in _KNOWN.validate_json(index.read_bytes())}
    except (OSError, ValidationError):  # not there, or written by another version: hashed again
        every = {}
    found = (every.get(path) for path in paths)
    return [each if each and each.is_as(state) else None for each, state in zip(found, states, strict=True)]


def _hash(
    files: Sequence[TextFile], known: Sequence[Hashed | None], report: Callable[[float], None]
) -> Iterator[Hashed]:
    sizes = [0 if each else file.state().size_bytes for file, each in zip(files, known, strict=True)]
    done = 0
    with ThreadPoolExecutor(thread_name_prefix="hashes") as threads:
        for hashed, size in zip(threads.map(_hash_one, files, known), sizes, strict=True):
            yield hashed
            done += size
            if sum(sizes) > _LARGE_BYTES:
                report(done / sum(sizes))


def _hash_one(file: TextFile, known: Hashed | None) -> Hashed:
    if known:
        return known
    state, now_ns = _state(file), time.time_ns()
    try:
        with file.open() as stream:
            sha256 = hashlib.file_digest(cast("io.BufferedReader", stream), "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(file, error) from error
    return Hashed(
        path=str(file),
        bytes=state.size_bytes,
        version=state.version,
        sha256=sha256,
        text_bytes=measure(file),
        is_settled=state.changed_ns < now_ns - _SETTLED_NS,
    )


def _state(file: TextFile) -> State:
    try:
        return file.state()
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: TextFile, error: OSError) -> CorpusError:
    why = error.strerror or error
    return CorpusError(f"{file}: cannot be read ({why}); correct data.corpus or data.vocab")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of this file, which is made if there is none, and wait for whoever holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
