"""The checkpoints of a job: listed, and removed one by one."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict

from server.errors import CheckpointNotFoundError, StoreUnreachableError, TransitionError
from server.http.context import NamedJob, ServerParts
from server.jobs.job import Job
from workers.contract.manifests import CheckpointManifest
from workers.contract.records import EvaluationRecord
from workers.contract.run.folder import CheckpointName, RunFolder

router = APIRouter(prefix="/v1/jobs/{job_id}/checkpoints", tags=["jobs"])


class StoredCheckpoint(BaseModel):
    """A checkpoint that is whole. What is null is not known: its manifest cannot be read, or is of an older version."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    step: int
    attempt: int
    """The attempt that wrote it; 0 for the one that a branch began with, and for those of older versions."""
    place: str
    """Its path or URL."""
    is_newest: bool
    """Whether the run would go on from it."""
    size_bytes: int | None = None
    world_size: int | None = None
    """Number of workers that wrote it."""
    is_sound: bool | None = None
    """Whether the loss was in good order."""
    evaluation: EvaluationRecord | None = None
    """The newest one up to its step."""
    problem: str | None = None
    """Why its manifest cannot be read."""


class Checkpoints(BaseModel):
    """The checkpoints of a job, the oldest first."""

    checkpoints: list[StoredCheckpoint]


@router.get("")
def list_checkpoints(job: NamedJob, server: ServerParts) -> Checkpoints:
    """List the checkpoints that are whole; one that is just being written is not among them."""
    run = RunFolder(server.folders.folder(job.id))
    try:
        names = run.finished()
        return Checkpoints(checkpoints=[_described(run, name, is_newest=name == _newest(names)) for name in names])
    except OSError as error:
        raise StoreUnreachableError(f"{error}; ask again later") from error


@router.delete("/{step}")
def remove(
    job: NamedJob, step: Annotated[int, Path(ge=0, le=2**53, description="Its step.")], server: ServerParts
) -> Checkpoints:
    """Remove the checkpoint of a step, and return those that are left. Branches have copies of their own.

    The newest one of a job that has not ended is not removed: the job would lose its way.
    """
    run = RunFolder(server.folders.folder(job.id))
    try:
        names = run.finished()
        _check(job, step, names)
        for name in names:
            if name.step == step:
                run.remove_checkpoint(name)
    except OSError as error:
        raise StoreUnreachableError(f"the checkpoint of step {step:,} may still be there: {error}") from error
    newest = _newest([name for name in names if name.step != step])
    server.store.change(job.id, lambda job: _without(job, step, newest, run))
    return list_checkpoints(job, server)


def _newest(names: list[CheckpointName]) -> CheckpointName | None:
    return max(names, key=lambda name: (name.attempt, name.step), default=None)


def _check(job: Job, step: int, names: list[CheckpointName]) -> None:
    steps = sorted({name.step for name in names})
    if step not in steps:
        there = f"there are those of steps {', '.join(map(str, steps))}" if steps else "it has none"
        raise CheckpointNotFoundError(f"job {job.id} has no checkpoint of step {step}: {there}")
    newest = _newest(names)
    if newest is not None and newest.step == step and not job.status.is_terminal:
        raise TransitionError(
            f"job {job.id} is {job.status} and would go on from step {step:,}, its newest checkpoint: cancel the job "
            "first, or have it save another one"
        )


def _without(job: Job, step: int, newest: CheckpointName | None, run: RunFolder) -> Job:
    if job.checkpoint_step != step:
        return job
    if newest is None:
        return replace(job, checkpoint_step=None, checkpoint_path=None)
    return replace(job, checkpoint_step=newest.step, checkpoint_path=run.store.place(newest.prefix))


def _described(run: RunFolder, name: CheckpointName, *, is_newest: bool) -> StoredCheckpoint:
    found = StoredCheckpoint(
        step=name.step, attempt=name.attempt, place=run.store.place(name.prefix), is_newest=is_newest
    )
    try:
        manifest = CheckpointManifest.parse(run.store.place(name.manifest), run.store.read(name.manifest))
    except (FileNotFoundError, ValueError) as error:  # it was removed meanwhile, or is damaged
        return found.model_copy(update={"problem": str(error)})
    return found.model_copy(
        update={
            "size_bytes": sum(file.size_bytes for file in manifest.files.values()),
            "world_size": manifest.world_size,
            "is_sound": manifest.is_sound,
            "evaluation": manifest.evaluation,
        }
    )
