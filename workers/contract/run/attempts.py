"""How a run without a server begins its next attempt: it counts attempts itself, and takes no folder but its own."""

from dataclasses import dataclass
from pathlib import Path

from workers.contract.manifests import UnknownFormatError
from workers.contract.problems import Problem, SpecError
from workers.contract.spec.job import JobSpec

from .branches import branch, named_run
from .changes import Change, allowed_changes
from .folder import RunFolder, RunFolderError
from .lock import LockedError
from .remote import StorageError


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt that has begun."""

    attempt: int
    changes: tuple[Change, ...]
    """How the specification differs from that of the attempt before."""


def begin(folder: RunFolder, spec: JobSpec, runs: Path) -> Begun:
    """Lock a folder for the next attempt, and make it this specification's own; a branch gets its first checkpoint.

    The folders of jobs, which a branch may name by their ids, are in `runs`.

    Raises:
        SpecError: the folder cannot be made or read, another process is at work in it, or it holds a run of another
            specification; or there is nothing that the branch could go on from.
        StorageError: the store on another machine cannot be used.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        attempt = folder.begin()
    except StorageError:
        raise
    except OSError as error:
        raise _unusable(folder, f"cannot be made: {error.strerror}") from None
    except (LockedError, RunFolderError, UnknownFormatError) as error:
        raise _unusable(folder, str(error)) from None
    try:
        changes = check(folder, spec)
        if spec.start_from is not None and not folder.finished():
            branch(folder, spec, spec.start_from, named_run(spec.start_from, runs))
        folder.put_spec(spec)
    except BaseException:
        folder.lock.release()
        raise
    return Begun(attempt, tuple(changes))


def check(folder: RunFolder, spec: JobSpec) -> list[Change]:
    """Return how the specification differs from that of the run in a folder; nothing where there is none yet.

    Raises:
        SpecError: a field has changed that changes the result, or the run's own specification cannot be read.
    """
    if not folder.has_spec():
        return []
    try:
        before = folder.spec()
    except SpecError as error:
        reason = f"holds a run of another specification, which cannot be read: {error}".replace("\n", " ")
        raise _unusable(folder, reason) from None
    try:
        return allowed_changes(before, spec, folder.steps_done())
    except SpecError as error:
        other = _unusable(folder, "holds a run of another specification")
        raise SpecError([*other.problems, *error.problems]) from None


def check_is_free(folder: RunFolder) -> None:
    """Check that no process is at work in a folder.

    Raises:
        SpecError: one is; says which.
    """
    if (holder := folder.lock.held_by()) is not None:
        raise _unusable(folder, f"is in use by {holder}")


def _unusable(folder: RunFolder, problem: str) -> SpecError:
    return SpecError([Problem("--run", repr(str(folder.path)), problem, "name another folder with --run")])
