"""A folder of ours below one that everybody may write in, such as /tmp, whatever others have put there."""

import itertools
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)


def place(wished: Path) -> Path:
    """Return where our folder is or can be made: at `wished`, or beside it where that name is another user's."""
    return next(path for path in _names(wished) if not _is_foreign(path))


def make(wished: Path) -> Path:
    """Make our folder, which only we can enter, or use the one that is there; return its path."""
    path = place(wished)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if _is_foreign(path):  # somebody else was faster
        return make(wished)
    path.chmod(0o700)
    if path != wished:
        log.warning("%s is another user's or no folder; Ray's sockets and logs are in %s instead", wished, path)
    return path


def _names(wished: Path) -> Iterator[Path]:
    yield wished
    yield from (wished.with_name(f"{wished.name}-{number}") for number in itertools.count(2))


def _is_foreign(path: Path) -> bool:
    """Tell whether something is there that is not a folder of ours: nobody else may choose where our sockets lie."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode)
