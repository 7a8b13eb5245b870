"""A small disk of its own, in memory, that can be full."""

import errno
import subprocess
from pathlib import Path
from typing import Self

SIZE_BYTES = 400 * 2**20


class Disk:
    """A file system that is mounted at `path` until the block ends. Only root may mount: `make faults` sees to that."""

    def __init__(self, path: Path, size_bytes: int = SIZE_BYTES) -> None:
        self.path, self._size_bytes = path, size_bytes

    def __enter__(self) -> Self:
        self.path.mkdir(mode=0o700, exist_ok=True)
        options = f"size={self._size_bytes},mode=0700"
        subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        # Processes that are just ending may still have files open here.
        subprocess.run(["/bin/umount", "--lazy", str(self.path)], check=True)

    @property
    def _filler(self) -> Path:
        return self.path / "filler"

    def fill(self) -> None:
        """Leave no room for another byte."""
        with self._filler.open("wb", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)
