"""The run folder of a job: the only module that knows what its files are called and where they lie.

It has two halves. Scratch needs append, rename and a lock: the growing journal, what was rejected of it, the lock, logs
and Ray's own files. The export is made there too, and `control.json` stays there, for it holds a token. The store holds
whole objects: `run.json`, `spec.yaml`, `tokenizer.json`, what each attempt found when it began, checkpoints, and copies
of the journal and of the export. Both halves are the run folder, unless the store was given another place.
"""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from workers.contract.documents import read_spec
from workers.contract.files import DRAFT
from workers.contract.manifests import FOLDER_FORMAT, JOURNAL_FORMAT, RunManifest, check_format
from workers.contract.problems import Problem, SpecError
from workers.contract.push import ControlPlane
from workers.contract.spec.job import JobSpec

from .beginnings import Beginnings
from .journal import Journal, renew
from .lock import Lock, SupersededError
from .remote import RemoteStore
from .storage import POINTER, keep, storage_of
from .store import FolderStore, Store

_MANIFEST, _SPEC, _CONTROL, _TOKENIZER = "run.json", "spec.yaml", "control.json", "tokenizer.json"
_DELETED = "deleted"
_CHECKPOINTS, _EXPORT, _JOURNAL = "checkpoints", "export", "events.jsonl"
_CHECKPOINT_NAME = re.compile(rf"{_CHECKPOINTS}/step-(\d+)(?:-a(\d+))?")


class RunFolderError(ValueError):
    """A run folder cannot be used as it is; the message says which file is wrong and what to do."""


@dataclass(frozen=True, slots=True, order=True)
class CheckpointName:
    """Which checkpoint: an attempt's, after a step. Sorted by step, and by attempt where two wrote the same step."""

    step: int
    attempt: int
    """0 if an older version wrote it, whose names had no attempts."""

    @property
    def prefix(self) -> str:
        """The part of the names of its objects that all of them share, without a slash at the end."""
        attempt = f"-a{self.attempt}" if self.attempt else ""
        return f"{_CHECKPOINTS}/step-{self.step:08d}{attempt}"

    @property
    def manifest(self) -> str:
        """The object that is written last: without it the checkpoint is not whole."""
        return f"{self.prefix}/manifest.json"


class RunFolder:
    """A run folder, whether or not it has been made.

    `storage` is the URL of its store; where it is not given, the folder says where that is.

    Attributes:
        path: The folder.
        storage: The URL of the store; None where that is the folder itself.
        store: The half that holds whole objects.
        lock: Says which attempt writes in the folder.
    """

    def __init__(self, path: Path, storage: str | None = None) -> None:
        self.path = path
        self.storage = storage_of(path) if storage is None else storage
        self.store: Store = RemoteStore(self.storage) if self.storage else FolderStore(path)
        self.lock = Lock(path / "lock")
        self._scratch = FolderStore(path)

    @property
    def _beginnings(self) -> Beginnings:
        return Beginnings(self.store)

    @property
    def journal(self) -> Path:
        """The growing file of records."""
        return self.path / _JOURNAL

    @property
    def rejected(self) -> Path:
        """Lines of the journal that could not be read or were refused, copied here."""
        return self.path / "events.rejected"

    def open_journal(self, attempt: int) -> Journal:
        """Open the journal for an attempt that goes on with it.

        Raises:
            SupersededError: a newer attempt has begun.
        """
        return Journal(self.journal, self.rejected, self.lock, attempt)

    @property
    def ray(self) -> Path:
        """What Ray Train writes."""
        return self.path / "ray"

    def log(self, attempt: int, rank: int | None = None) -> Path:
        """What a rank of an attempt printed, or without `rank` its driver; on the node where that process ran."""
        return self.path / "logs" / f"attempt-{attempt}" / ("driver.log" if rank is None else f"rank-{rank}.log")

    def manifest(self) -> RunManifest:
        """Read `run.json`; a folder without one is new, or older than that file.

        Raises:
            RunFolderError: it cannot be read.
            UnknownFormatError: a newer version wrote it.
        """
        if not self.store.has(_MANIFEST):
            return RunManifest()
        content = self.store.read(_MANIFEST)
        try:
            for field, known in (("format", FOLDER_FORMAT), ("journal_format", JOURNAL_FORMAT)):
                check_format(self.store.place(_MANIFEST), content, field, known)
            return RunManifest.model_validate_json(content)
        except ValidationError as error:
            raise RunFolderError(
                f"{self.store.place(_MANIFEST)} cannot be read: {error.errors()[0]['msg']}; restore it from a backup"
            ) from None

    def put_manifest(self, manifest: RunManifest) -> None:
        """Write `run.json`."""
        self.store.put(_MANIFEST, _content(manifest))

    def _put_manifest_of(self, attempt: int, manifest: RunManifest) -> None:
        """Write `run.json`, unless a newer attempt has begun.

        A store on another machine has no rename: there, one that is stopped just before it writes may write later.

        Raises:
            SupersededError: it has.
        """
        self.check(attempt)
        if self.storage:
            self.put_manifest(manifest)
        else:
            self.lock.replace(self.path / _MANIFEST, attempt, lambda file: file.write(_content(manifest)))

    def begin(self) -> int:
        """Begin an attempt of its own, unless another process is at work here; return the attempt's number.

        Raises:
            LockedError: one is; says which.
        """
        recorded = self.manifest()
        attempt = self.lock.acquire(lambda last: max(last, recorded.attempt) + 1)
        try:
            self._note_beginning(attempt)
            self.put_manifest(self.manifest().in_attempt(attempt))
        except BaseException:
            self.lock.release()
            raise
        return attempt

    def take_over(self, attempt: int) -> None:
        """Begin an attempt that others count, without waiting for lower ones: what they still write goes nowhere.

        Raises:
            SupersededError: a newer attempt has begun.
            LockedError: this very attempt is at work already.
        """
        self.manifest()  # refuses a folder that this version cannot read before it is changed
        self.lock.take_over(attempt)
        # In this order: the records of a checkpoint that counts are in the journal before it is copied.
        self._note_beginning(attempt)
        renew(self.journal, self.lock, attempt)
        self._put_manifest_of(attempt, self.manifest().in_attempt(attempt))

    def keep_storage(self) -> None:
        """Have the folder say where its store is, for all who open it without being told."""
        if self.storage:
            keep(self.path, self.storage)

    def _note_beginning(self, attempt: int) -> None:
        self.keep_storage()
        self._beginnings.add(attempt, (name.prefix for name in self.finished()))
        if self.storage and not self.journal.exists() and self.store.has(_JOURNAL):  # another machine wrote it
            self._scratch.take(_JOURNAL, self.store, _JOURNAL)

    def check(self, attempt: int) -> None:
        """Check that no newer attempt has begun, on this machine or on another one with the same store.

        Raises:
            SupersededError: one has.
        """
        self.lock.check(attempt)
        if (newest := self._beginnings.newest()) > attempt:
            raise SupersededError(f"{self.store.place()} belongs to attempt {newest}: attempt {attempt} is over")

    def keep_journal(self, attempt: int) -> None:
        """Copy the journal to a store of its own place, so that what a checkpoint holds is told of there too.

        Raises:
            SupersededError: a newer attempt has begun.
        """
        if self.storage:
            self.check(attempt)
            self.store.take(_JOURNAL, self._scratch, _JOURNAL)

    def keep_export(self, files: Iterable[str]) -> None:
        """Copy these files of the export to a store of its own place, in this order."""
        if self.storage:
            for name in files:
                self.store.take(f"{_EXPORT}/{name}", self._scratch, f"{_EXPORT}/{name}")

    def begin_on(self, attempt: int, identity: str) -> str | None:
        """Return what the run was begun on; where that is not known, write `identity` down and return None.

        Raises:
            SupersededError: a newer attempt has begun.
        """
        manifest = self.manifest()
        if manifest.identity is None:
            self._put_manifest_of(attempt, manifest.model_copy(update={"identity": identity}))
        return manifest.identity

    def steps_done(self) -> int:
        """Return the step of the newest checkpoint that was finished; 0 where there is none."""
        finished = [(name.attempt, name.step) for name in self.finished()]
        return max(finished)[1] if finished else 0

    def is_only_prepared(self) -> bool:
        """Whether there is nothing but the checkpoint that a branch takes before its job is stored, or a part of it."""
        here = {path.name for path in self.path.iterdir() if not path.name.startswith(DRAFT)}
        stored = {name.partition("/")[0] for name in self.store.list()}
        is_known = here | stored <= {POINTER, _MANIFEST, _CHECKPOINTS}
        return is_known and all(name.attempt == 0 for name in self.checkpoints())

    def has_spec(self) -> bool:
        """Whether the folder is some run's already."""
        return self.store.has(_SPEC)

    def spec(self) -> JobSpec:
        """Read `spec.yaml`.

        Raises:
            SpecError: there is none, it cannot be read, or it is not a valid specification.
        """
        try:
            text = self.store.read(_SPEC).decode()
        except FileNotFoundError:
            raise self._unreadable_spec("is missing") from None
        except UnicodeDecodeError:
            raise self._unreadable_spec("is not UTF-8 text") from None
        except OSError as error:
            raise self._unreadable_spec(f"cannot be read: {error.strerror or error}") from None
        return read_spec(text)

    def _unreadable_spec(self, problem: str) -> SpecError:
        remedy = "restore it from a backup, or begin another run"
        return SpecError([Problem(_SPEC, repr(self.store.place(_SPEC)), problem, remedy)])

    def put_spec(self, spec: JobSpec) -> None:
        """Write `spec.yaml`."""
        text = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        self.store.put(_SPEC, text.encode())

    def tokenizer(self) -> str | None:
        """Return the run's `tokenizer.json`; None where a version began the run that did not write it."""
        return self.store.read(_TOKENIZER).decode() if self.store.has(_TOKENIZER) else None

    def put_tokenizer(self, tokenizer: str) -> None:
        """Write `tokenizer.json`, so that checkpoints can be used wherever the text may be."""
        self.store.put(_TOKENIZER, tokenizer.encode())

    def has_control(self) -> bool:
        """Whether a control plane wants the run's records."""
        return self._scratch.has(_CONTROL)

    def control(self) -> ControlPlane:
        """Read where to push records.

        Raises:
            FileNotFoundError: there is no control plane.
            ValidationError: the file cannot be read.
        """
        return ControlPlane.model_validate_json(self._scratch.read(_CONTROL))

    def put_control(self, control: ControlPlane) -> None:
        """Write where to push records."""
        self._scratch.put(_CONTROL, control.model_dump_json().encode())

    def mark_deleted(self) -> None:
        """Note that the run's job is being deleted, so that what could not be removed at once is removed later."""
        if self.path.is_dir():
            self._scratch.put(_DELETED, b"")

    @property
    def is_deleted(self) -> bool:
        """Whether the run's job was being deleted."""
        return self._scratch.has(_DELETED)

    def remove(self) -> None:
        """Remove everything, here and in the store; the mark of a deleted job stays until all else is gone.

        Raises:
            OSError: something cannot be removed.
        """
        if self.storage:
            self.store.clear("")
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in {_DELETED, POINTER}:
                path.unlink(missing_ok=True)
        self._scratch.clear("")

    def remove_checkpoint(self, name: CheckpointName) -> None:
        """Remove a checkpoint, the manifest first, so that half of one is never taken for a whole one.

        Raises:
            OSError: something cannot be removed.
        """
        self.store.delete(name.manifest)
        self.store.clear(name.prefix)

    def checkpoints(self) -> list[CheckpointName]:
        """Return every checkpoint that has at least one object, the oldest first, whole or not.

        A folder whose name only resembles that of a checkpoint is left out.
        """
        return _checkpoints_among(self.store.list(_CHECKPOINTS))

    def finished(self) -> list[CheckpointName]:
        """Return the checkpoints that are whole, sorted by step, without those that are late."""
        late, whole = self._late_and_whole()
        return [name for name in whole if name not in late]

    def late(self) -> list[CheckpointName]:
        """Return the checkpoints that an attempt finished after a newer one had begun: they are never used.

        Raises:
            RunFolderError: what an attempt found when it began cannot be read.
        """
        return self._late_and_whole()[0]

    def _late_and_whole(self) -> tuple[list[CheckpointName], list[CheckpointName]]:
        try:
            beginnings = self._beginnings.all()
        except ValueError as error:
            raise RunFolderError(str(error)) from None
        names = self.store.list(_CHECKPOINTS)
        whole = [name for name in _checkpoints_among(names) if name.manifest in names]
        # The checkpoint that a branch begins with, attempt 0, may be put back by hand at any time.
        late = [
            name
            for name in whole
            if name.attempt
            and any(each.attempt > name.attempt and name.prefix not in each.checkpoints for each in beginnings)
        ]
        return late, whole

    @property
    def checkpoints_place(self) -> str:
        """The path or URL of all checkpoints."""
        return self.store.place(_CHECKPOINTS)

    @property
    def export(self) -> Path:
        """The folder that the finished model is exported to."""
        return self.path / _EXPORT


def older_half(log: Path) -> Path:
    """Return the file that a log becomes once it is large, so that a new one can be begun in its place."""
    return log.with_name(f"{log.name}.1")


def _checkpoints_among(objects: Iterable[str]) -> list[CheckpointName]:
    prefixes = {"/".join(name.split("/")[:2]) for name in objects}
    matches = filter(None, map(_CHECKPOINT_NAME.fullmatch, prefixes))
    names = {CheckpointName(int(match[1]), int(match[2] or 0)) for match in matches}
    return sorted(name for name in names if name.prefix in prefixes)


def _content(manifest: RunManifest) -> bytes:
    return manifest.model_dump_json(indent=2).encode() + b"\n"
