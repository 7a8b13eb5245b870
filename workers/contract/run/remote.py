"""A store on another machine, reached through fsspec: s3://BUCKET/FOLDER, gs://, and whatever else fsspec knows.

Credentials come from the environment, as each file system reads it (s3fs: AWS_ACCESS_KEY_ID, AWS_PROFILE, the role of
the machine ...), never from a specification, a record or the URL.
"""

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from typing_extensions import Buffer

from .store import Store

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_AHEAD = 8 * 2**20
_REMEDIES = {
    ("ImportError",): "for s3:// that is: pip install 'bigbatch[s3]'",
    ("ValueError",): "name a place that fsspec knows, such as s3://BUCKET/FOLDER",
    ("NoCredentialsError", "PartialCredentialsError", "PermissionError"): (
        "give the server and every worker credentials that may list, read, write and delete there, in the environment: "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    ),
    ("EndpointConnectionError", "ConnectionError", "HTTPClientError", "TimeoutError"): (
        "check the network, and AWS_ENDPOINT_URL where the store is not Amazon's own"
    ),
    ("FileNotFoundError",): "check the name of the bucket, and make it if it is not there",
}
"""What to do about an error, by the names of its class and of those above it, since their packages may be missing."""


class StorageError(OSError):
    """A store on another machine could not do what it should; the message says where, what is wrong and what to do."""


class RemoteStore:
    """Objects whose names begin with the path of a URL."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def put(self, name: str, content: bytes) -> None:
        """Upload an object: an object store shows the old one or the new one, never a part."""
        with self._telling(name):
            system, path = self._find(name)
            system.pipe_file(path, content)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Upload what the block writes, in parts, which become an object when the block has ended.

        Where the block raises, the parts are given up. Those of a process that is killed stay, unseen, until a rule of
        the bucket removes them (AbortIncompleteMultipartUpload).
        """
        with self._telling(name):
            system, path = self._find(name)
            file = system.open(path, "wb", autocommit=False)  # else it is stored even where the block raises
        try:
            yield cast("BinaryIO", _Upload(file, lambda: self._telling(name)))
            with self._telling(name):
                file.close()
                file.commit()
        except BaseException:
            with suppress(Exception):  # the first error says what is wrong
                file.discard()
            file.closed = True  # else the end of the object in memory would store it
            raise

    def take(self, name: str, source: Store, theirs: str) -> None:
        """Have the object store copy where both are on the same one, else upload."""
        if isinstance(source, RemoteStore) and source._protocol == self._protocol:  # noqa: SLF001 -- its own class
            with self._telling(name, missing_is_told=False):
                system, path = self._find(name)
                system.cp_file(source._find(theirs)[1], path)  # noqa: SLF001
            return
        with source.reading(theirs) as original, self.writing(name) as copy:
            shutil.copyfileobj(original, copy, 2**20)

    def read(self, name: str) -> bytes:
        """Download an object."""
        with self._telling(name, missing_is_told=False):
            system, path = self._find(name)
            content: bytes = system.cat_file(path)
        return content

    def reading(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open an object; a read downloads what it asks for, or, of small things, those behind them with them."""
        with self._telling(name, missing_is_told=False):
            system, path = self._find(name)
            found = system.open(path, "rb", cache_type="none")
        return io.BufferedReader(_Download(found, lambda: self._telling(name)), _AHEAD)

    def has(self, name: str) -> bool:
        """Ask for an object; an error is no answer."""
        with self._telling(name, missing_is_told=False):
            system, path = self._find(name)
            try:
                return bool(system.info(path)["type"] == "file")
            except FileNotFoundError:
                return False

    def list(self, folder: str = "") -> list[str]:
        """List the objects, as they are at this moment."""
        with self._telling(folder):
            system, root = self._find("")
            found = system.find(self._find(folder)[1])
        names = (name.removeprefix(f"{root}/") for name in found)
        return sorted(name for name in names if name.startswith(f"{folder}/" if folder else "") and name[-1:] != "/")

    def delete(self, name: str) -> None:
        """Remove an object, if there is one."""
        with self._telling(name), suppress(FileNotFoundError):
            system, path = self._find(name)
            system.rm_file(path)

    def clear(self, folder: str) -> None:
        """Remove the objects, and make sure that they are gone: not every file system tells of each that stays."""
        if names := self.list(folder):
            with self._telling(folder):
                system, _ = self._find("")
                system.rm([self._find(name)[1] for name in names])
            if left := self.list(folder):
                raise StorageError(f"{self.place(left[0])} and {len(left) - 1:,} more objects cannot be removed")

    def place(self, name: str = "") -> str:
        """Return a URL."""
        return f"{self._url}/{name}" if name else self._url

    @property
    def _protocol(self) -> str:
        return self._url.partition("://")[0]

    def _find(self, name: str) -> "tuple[AbstractFileSystem, str]":
        from fsspec.core import url_to_fs

        # Another worker, or another attempt, changes what was listed before.
        found: tuple[Any, str] = url_to_fs(self.place(name), use_listings_cache=False)
        return found

    @contextmanager
    def _telling(self, name: str, *, missing_is_told: bool = True) -> Iterator[None]:
        """Raise every error as one that says where and what to do; that there is no such object may be no error."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and not missing_is_told:
                raise
            kinds = {kind.__name__ for kind in type(error).__mro__}
            remedy = next((remedy for names, remedy in _REMEDIES.items() if kinds.intersection(names)), None)
            what = f"{self.place(name)}: {type(error).__name__}: {error}"
            raise StorageError(f"{what}; {remedy}" if remedy else what) from error


_Telling = Callable[[], AbstractContextManager[None]]


class _Upload(io.RawIOBase):
    """Hands on what is written. The upload is ended by who began it."""

    def __init__(self, file: Any, telling: _Telling) -> None:
        self._file, self._telling = file, telling

    def writable(self) -> bool:
        return True

    def write(self, content: Buffer) -> int:
        with self._telling():
            return int(self._file.write(content))

    def tell(self) -> int:
        return int(self._file.tell())


class _Download(io.RawIOBase):
    """Reads at any place."""

    def __init__(self, file: Any, telling: _Telling) -> None:
        self._file, self._telling = file, telling

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        place = memoryview(buffer)
        with self._telling():
            content = self._file.read(len(place))
        place[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())
