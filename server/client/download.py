"""An exported model of a server elsewhere, stored in a folder here: whole or not there."""

import hashlib
import os
import tarfile
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

from workers.contract.exports import ExportManifest, read_export
from workers.contract.files import BusyError, replacing_folder
from workers.contract.manifests import UnknownFormatError

from .client import Client
from .errors import DownloadError


def download(client: Client, job_id: str, target: Path) -> ExportManifest:
    """Store the exported model of a job in a folder; an older export in its place is replaced.

    Raises:
        DownloadError: the folder is another one or cannot be written, or what arrived is not what the server has.
        RefusedError: the job has no exported model.
        UnreachableError: the connection broke off, or there was none.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())) and read_export(target) is None:
        raise DownloadError(f"{target} exists and is not an export of bigbatch: name another folder, or remove it")
    try:
        with client.export(job_id) as pieces, replacing_folder(target) as draft:
            _unpack(pieces, draft)
            return _checked(draft)
    except (OSError, tarfile.TarError, BusyError, UnknownFormatError) as error:
        raise DownloadError(f"the model could not be stored in {target}: {error}") from error


def _unpack(pieces: Iterator[bytes], draft: Path) -> None:
    with tarfile.open(fileobj=_Stream(pieces), mode="r|", bufsize=2**20) as archive:
        for member in archive:
            member.name = Path(member.name).name  # without the archive's one folder
            archive.extract(member, draft, filter="data")


def _checked(draft: Path) -> ExportManifest:
    manifest = read_export(draft)
    if manifest is None:
        raise DownloadError("the archive has no manifest.json: ask again")
    for name, stored in manifest.files.items():
        with (draft / name).open("rb") as file:
            os.fsync(file.fileno())
            if stored.sha256 not in {None, hashlib.file_digest(file, "sha256").hexdigest()}:
                raise DownloadError(f"{name} did not arrive as it was written: ask again")
    return manifest


class _Stream(RawIOBase):
    """Reads from pieces as they come."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        read, self._rest = self._rest[:size], self._rest[size:]
        return read
