"""Which attempt writes in a run folder: one at a time, and a newer one never waits for an older one.

The lock is a file that names its attempt and is locked (flock) by the process of that attempt as long as it lives. An
attempt of a job takes over from a lower one, which may be stopped and come back, by putting files of its own in place:
what the lower one still writes goes to files that have no name any more. Two rules make this safe at any interleaving:

- An attempt writes a draft whose name carries its number, then looks at the lock, then renames the draft.
- Whoever has put a new lock in place removes all drafts of lower attempts, so that their renames fail.
"""

import fcntl
import os
import re
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pydantic import AwareDatetime, BaseModel, ValidationError

from workers.contract.fields import Count
from workers.contract.files import DRAFT, sync_folder

_DRAFT_OF = re.compile(re.escape(DRAFT) + r".*\.a(\d+)\.[0-9a-f]+")


class Holder(BaseModel):
    """What the lock says of the attempt that has it or had it last."""

    attempt: Count
    pid: int
    host: str
    since: AwareDatetime

    def __str__(self) -> str:
        """Read as a part of a message."""
        return f"attempt {self.attempt} (process {self.pid} on {self.host}, since {self.since:%Y-%m-%d %H:%M:%S} UTC)"


class LockedError(RuntimeError):
    """Another process writes in the run folder."""


class SupersededError(RuntimeError):
    """A newer attempt has taken the run folder over, and this one must end."""


class Lock:
    """The lock of a run folder, and whatever is replaced under its protection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def holder(self) -> Holder | None:
        """Read who has the lock or had it last; None where nobody ever had, or the file cannot be read."""
        try:
            return Holder.model_validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def held_by(self) -> Holder | None:
        """Read who has the lock now; None where nobody has it."""
        return self.holder() if self._path.exists() and self._is_held() else None

    def acquire(self, count: Callable[[int], int]) -> int:
        """Lock the folder for a new attempt; `count` makes its number of the last holder's. Return the number.

        Raises:
            LockedError: another process has the lock, or the file system has no locks.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._locked() from None
            except OSError as error:
                raise LockedError(f"is on a file system that cannot lock files: {error.strerror}") from None
            if not self._is(file):  # somebody else replaced it since it was opened
                raise self._locked()
            last = self.holder()
            attempt = count(last.attempt if last else 0)
            self._put(attempt)
        return attempt

    def take_over(self, attempt: int) -> None:
        """Take the lock from every lower attempt, whether or not its processes are alive.

        Raises:
            SupersededError: a newer attempt has the lock.
            LockedError: another process has the lock for this very attempt.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        last = self.holder()
        if last is not None and last.attempt == attempt and self._is_held():
            raise self._locked()
        while self._file is None or not self._is(self._file):
            self.check(attempt)
            self._put(attempt)
            self._remove_drafts_below(attempt)

    def check(self, attempt: int) -> None:
        """Check that no newer attempt has the lock.

        Raises:
            SupersededError: one has.
        """
        last = self.holder()
        if last is not None and last.attempt > attempt:
            raise SupersededError(f"{self._path.parent} belongs to {last}: attempt {attempt} is over")

    def replace(self, path: Path, attempt: int, write: Callable[[BinaryIO], object]) -> None:
        """Put what `write` writes in place of a file beside the lock, unless a newer attempt has begun.

        Raises:
            SupersededError: it has; the file is as it was.
        """
        draft = _draft(path, attempt)
        try:
            with draft.open("xb") as file:
                self.check(attempt)
                write(file)
                file.flush()
                os.fsync(file.fileno())
            self._rename(draft, path, attempt)
        finally:
            draft.unlink(missing_ok=True)

    def _put(self, attempt: int) -> None:
        """Put a lock file in place that this process has locked already."""
        draft = _draft(self._path, attempt)
        holder = Holder(attempt=attempt, pid=os.getpid(), host=socket.gethostname(), since=datetime.now(UTC))
        file = draft.open("xb")
        try:
            with suppress(OSError):  # without locks on this file system, nobody can acquire it either
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(holder.model_dump_json().encode() + b"\n")
            file.flush()
            self._rename(draft, self._path, attempt)
        except BaseException:
            file.close()
            raise
        self.release()
        self._file = file

    def release(self) -> None:
        """Let others have the lock; the file goes on to name this attempt."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rename(self, draft: Path, path: Path, attempt: int) -> None:
        self.check(attempt)
        try:
            draft.rename(path)
        except FileNotFoundError:  # a newer attempt removed it
            self.check(attempt)
            raise
        sync_folder(path.parent)

    def _remove_drafts_below(self, attempt: int) -> None:
        for path in self._path.parent.iterdir():
            match = _DRAFT_OF.fullmatch(path.name)
            if match and int(match[1]) < attempt:
                path.unlink(missing_ok=True)

    def _is(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False

    def _is_held(self) -> bool:
        with self._path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _locked(self) -> LockedError:
        return LockedError(f"is in use by {self.holder() or 'another process'}; wait for its end or stop it")


def _draft(path: Path, attempt: int) -> Path:
    return path.with_name(f"{DRAFT}{path.name}.a{attempt}.{secrets.token_hex(4)}")
