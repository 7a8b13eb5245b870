"""A branch: a run that goes on from another run's checkpoint, with other settings.

The checkpoint becomes the branch's own before anything is trained, so that neither what the other run removes nor its
deletion can take it away. There it belongs to attempt 0, which makes it older than all that the branch writes.
"""

from pathlib import Path

from workers.contract.manifests import CheckpointManifest, Parent
from workers.contract.problems import Problem, SpecError
from workers.contract.spec.job import JobSpec
from workers.contract.spec.start_from import StartFrom

from .changes import check_branch
from .folder import CheckpointName, RunFolder
from .remote import StorageError
from .store import size_of


def named_run(start: StartFrom, runs: Path) -> RunFolder:
    """Return the folder of the run that `start` names; a job's is in the folder `runs`.

    Raises:
        SpecError: it is a relative path, of which nobody knows where it starts.
    """
    if "/" in start.run and not Path(start.run).is_absolute():
        problem, remedy = "is a relative path", "write an absolute path, or the id of a job"
        raise SpecError([Problem("start_from.run", repr(start.run), problem, remedy)])
    return RunFolder(Path(start.run) if "/" in start.run else runs / start.run)


def branch(folder: RunFolder, spec: JobSpec, start: StartFrom, parent: RunFolder) -> None:
    """Take the checkpoint `start` of the run `parent` into a new run's folder, and write down where it is from.

    The same files are used where the disk allows it, else copies.

    Raises:
        StorageError: a store on another machine cannot be used at this moment.
        SpecError: there is no such run or checkpoint, it cannot be read, or the specification changes what a branch
            cannot change.
    """
    name = find_start(spec, start, parent)
    try:
        manifest = _take(folder, parent, name)
        identity = manifest.identity or parent.manifest().identity
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        folder.store.clear(_own(name).prefix)
        if isinstance(error, FileNotFoundError) and name not in parent.finished():  # it was removed meanwhile
            raise _gone(start, parent) from None
        raise SpecError([_problem(start, f"this checkpoint cannot be taken: {error}", _others(parent, name))]) from None
    origin = Parent(run=start.run, step=start.step)
    folder.put_manifest(folder.manifest().model_copy(update={"identity": identity, "parent": origin}))


def find_start(spec: JobSpec, start: StartFrom, parent: RunFolder) -> CheckpointName:
    """Return the checkpoint `start` of the run `parent`, whose files are not read yet.

    Raises:
        SpecError: there is no such run or checkpoint, or the specification changes what a branch cannot change.
    """
    check_branch(_spec(start, parent), spec, start.step)
    name = max((each for each in parent.finished() if each.step == start.step), default=None)
    if name is None:
        raise _gone(start, parent)
    return name


def _spec(start: StartFrom, parent: RunFolder) -> JobSpec:
    problem, remedy = f"there is no run in {parent.path}", "write the id of a job, or the path of a run folder"
    if parent.has_spec():
        try:
            return parent.spec()
        except SpecError as error:
            reason = str(error).replace("\n", " ")
            problem, remedy = (
                f"its specification cannot be read: {reason}",
                "correct its spec.yaml, or name another run",
            )
    raise SpecError([Problem("start_from.run", repr(start.run), problem, remedy)])


def _take(folder: RunFolder, parent: RunFolder, name: CheckpointName) -> CheckpointManifest:
    """Take all files, the manifest last: without it, what is there is no checkpoint."""
    content = parent.store.read(name.manifest)
    manifest = CheckpointManifest.parse(parent.store.place(name.manifest), content)
    for file, stored in manifest.files.items():
        ours = f"{_own(name).prefix}/{file}"
        folder.store.take(ours, parent.store, f"{name.prefix}/{file}")
        if (size := size_of(folder.store, ours)) != stored.size_bytes:
            raise ValueError(f"{file} has {size:,} bytes instead of {stored.size_bytes:,}")
    folder.store.put(_own(name).manifest, content)
    return manifest


def _own(name: CheckpointName) -> CheckpointName:
    return CheckpointName(name.step, 0)


def _gone(start: StartFrom, parent: RunFolder) -> SpecError:
    return SpecError([_problem(start, f"run {start.run} has no checkpoint of this step", _others(parent))])


def _others(parent: RunFolder, but: CheckpointName | None = None) -> str:
    steps = sorted({name.step for name in parent.finished() if name != but})
    there = f"name a step that it has: {', '.join(map(str, steps))}"
    return there if steps else "it has no other, so begin a run of its own, or wait for one"


def _problem(start: StartFrom, problem: str, remedy: str) -> Problem:
    return Problem("start_from.step", str(start.step), problem, remedy)
