"""Files that must never be seen half-written or by other users."""

import fcntl
import json
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

DRAFT = ".draft-"
"""Names of files that are being written begin with this."""
SHORTEST_SECRET = 20
"""Characters of a token that a file may hold; one that is made here has 43, of 256 random bits."""

_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO
log = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file, readable by its owner alone, that takes the place of `path` at once when the block has ended.

    It survives a loss of power from then on. Where the block raises, `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{DRAFT}{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


class BusyError(RuntimeError):
    """Another process writes the same folder at this moment."""


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `path` when the block has ended; where it raises, nothing changes.

    The block has its own files survive a loss of power.

    Raises:
        BusyError: another process writes the folder at this moment.
    """
    draft, old = (path.with_name(f"{DRAFT}{path.name}{suffix}") for suffix in ("", ".old"))
    descriptor = _lock(draft)
    try:
        for remains in draft.iterdir():  # of a process that was killed
            remains.unlink()
        yield draft
        os.fsync(descriptor)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        draft.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def _lock(draft: Path) -> int:
    """Make a folder and lock it as long as this process lives; return its descriptor."""
    draft.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if draft.exists() and os.path.samestat(os.fstat(descriptor), draft.stat()):
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    raise BusyError(f"another process writes {draft} at this moment")


def write_private(path: Path, text: str) -> None:
    """Put `text` in place of the file at once, readable by its owner alone."""
    with replacing(path) as file:
        file.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is no such file or it holds something else."""
    if not path.is_file():  # reading a pipe would wait without end
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) else None


class SecretError(ValueError):
    """A file does not hold a token that can be trusted; says what is wrong and what to do."""


def secret(path: Path) -> str:
    """Read the token in a file, made at the first call. From then on, only its owner can read the file.

    Raises:
        SecretError: the file cannot be read, or what it holds could be guessed.
    """
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32) + "\n")
    close_to_others(path)
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"{path} cannot be read ({error}): remove it, and a new token is made") from None
    if len(token) < SHORTEST_SECRET or any(not "!" <= character <= "~" for character in token):
        raise SecretError(
            f"{path} holds {len(token)} characters, and a token has at least {SHORTEST_SECRET}, none of them a space "
            "or outside ASCII: remove the file, and a new token is made"
        )
    return token


def close_to_others(path: Path) -> None:
    """Take from other users what they may do with a file or folder, and log a warning where that was anything."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & _FOR_OTHERS:
        return
    try:
        path.chmod(mode & ~_FOR_OTHERS)
    except PermissionError:
        remedy = "have its owner take these rights away (chmod go-rwx), or use another folder"
        log.warning("%s is open to other users (mode %04o) and belongs to another one: %s", path, mode, remedy)
    else:
        log.warning("%s was open to other users (mode %04o); now it is closed to them", path, mode)
