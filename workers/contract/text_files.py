"""One file of text: on this machine, or on any file system that fsspec knows, such as s3://, gs://, hf:// or http://."""

import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, cast, get_args

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Kind = Literal["txt", "jsonl", "parquet"]
Compression = Literal["gz", "zst"]
SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz", ".txt.zst", ".jsonl.zst", ".parquet")
ALLOWED = ".txt, .jsonl (either also as .gz or .zst) or .parquet"
_LOCAL = "file://"
_MARKS = ("ETag", "Content-MD5", "Digest", "Last-Modified")
"""What a web server may say of a file's content. fsspec's own key of such a file is its URL alone."""


class State(NamedTuple):
    """What tells, without reading a file, whether it has changed."""

    size_bytes: int
    version: str
    """Times of change of the file and of its inode, the latter set also where a copy takes over the former; or what a
    remote file system says of a file."""
    changed_ns: int
    """The later one of these times; 0 of a remote file."""


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file of text by its absolute path, or by its URL on another file system."""

    name: str

    def __str__(self) -> str:
        """Return path or URL; with backslashes for what is not UTF-8."""
        return os.fsencode(self.name).decode(errors="backslashreplace")

    @property
    def is_remote(self) -> bool:
        """Whether it is read through fsspec."""
        return is_url(self.name)

    @property
    def kind(self) -> Kind:
        """How its bytes become documents."""
        parts = self.name.lower().split(".")
        return cast("Kind", next((part for part in parts[:-3:-1] if part in get_args(Kind)), "txt"))

    @property
    def compression(self) -> Compression | None:
        """How its text is compressed."""
        last = self.name.lower().rpartition(".")[2]
        return cast("Compression", last) if last in get_args(Compression) else None

    def open(self) -> BinaryIO:
        """Open the bytes of the file, as they are stored.

        Raises:
            OSError: it cannot be read.
        """
        if not self.is_remote:
            return Path(self.name).open("rb")
        with _as_os_errors(self.name):
            system, path = file_system(self.name)
            return cast("BinaryIO", system.open(path, "rb"))

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """Open the text of the file, decompressed.

        Raises:
            OSError: it cannot be read.
        """
        with self.open() as raw:
            if self.compression == "gz":
                with gzip.GzipFile(fileobj=raw) as text:
                    yield cast("BinaryIO", text)
            elif self.compression == "zst":
                from pyarrow import CompressedInputStream

                with io.BufferedReader(CompressedInputStream(raw, "zstd")) as text:
                    yield cast("BinaryIO", text)
            else:
                yield raw

    def state(self) -> State:
        """Look at the file without reading it.

        Raises:
            OSError: it is not there, or cannot be looked at.
        """
        if self.is_remote:
            with _as_os_errors(self.name):
                system, path = file_system(self.name)
                found = system.info(path)
                version = [system.ukey(path), *(str(found[mark]) for mark in _MARKS if mark in found)]
                return State(found.get("size") or 0, " ".join(version), 0)
        status = Path(self.name).stat()
        changes = (status.st_mtime_ns, status.st_ctime_ns)
        return State(status.st_size, " ".join(map(str, changes)), max(changes))


def is_text(name: str) -> bool:
    """Tell by its name whether a file holds text."""
    return name.lower().endswith(SUFFIXES)


def is_url(source: str) -> bool:
    """Tell whether a source lies on another file system than this machine's."""
    return "://" in source and not source.startswith(_LOCAL)


def is_local_system(url: str) -> bool:
    """Tell whether a URL may lead to files of this machine: by another name of its file system, or through a chain."""
    from fsspec import get_filesystem_class
    from fsspec.implementations.local import LocalFileSystem

    protocol = url.partition("://")[0]
    try:
        return "::" in url or protocol == "git" or issubclass(get_filesystem_class(protocol), LocalFileSystem)
    except (ValueError, ImportError):
        return False  # nothing can read it


def without_protocol(source: str) -> str:
    """Return the path of a file:// URL, and anything else as it is."""
    return source.removeprefix(_LOCAL)


def file_system(url: str) -> "tuple[AbstractFileSystem, str]":
    """Return the file system of a URL, and the path on it."""
    from fsspec.core import url_to_fs

    found: tuple[Any, str] = url_to_fs(url)
    return found


@contextmanager
def _as_os_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # every file system raises errors of its own library
        raise OSError(f"{name}: {type(error).__name__}: {error}") from error


def find_remote(url: str) -> list[tuple[str, str]]:
    """Return the sorted URLs of the files that a URL names: one file, those of a glob, or all below a folder.

    Each comes with its part below that folder, or all of it where it is not below one.

    Raises:
        OSError: the file system cannot be reached, is not known, or needs a package that is not installed.
    """
    with _as_os_errors(url):
        system, path = file_system(url)
        if system.isfile(path):
            found = [path]
        elif any(c in path for c in "*?["):
            found = [each for each in system.glob(path) if system.isfile(each)]
        else:
            found = system.find(path)
        root = system.unstrip_protocol(path)
        return sorted((name := system.unstrip_protocol(each), name.removeprefix(root)) for each in found)
