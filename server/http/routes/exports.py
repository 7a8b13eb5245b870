"""The finished model of a job, as one archive. Only the job itself, or a process beside the server, makes one."""

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from server.errors import ExportNotFoundError
from server.http.archive import Archive
from server.http.context import NamedJob, ServerParts
from server.jobs.job import Job
from workers.contract.exports import ExportManifest, read_export
from workers.contract.manifests import MANIFEST
from workers.contract.run.folder import RunFolder

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

TAR = "application/x-tar"


@router.get("/export", response_class=StreamingResponse, responses={200: {"content": {TAR: {}}}})
def export(job: NamedJob, server: ServerParts) -> StreamingResponse:
    """Read the finished model: a tar archive with one folder that `transformers` loads. 404 until it is exported."""
    folder = RunFolder(server.folders.folder(job.id)).export
    manifest = read_export(folder)
    if manifest is None:
        raise ExportNotFoundError(_why(job))
    try:
        sizes = {name: file.size_bytes for name, file in manifest.files.items()}
        archive = Archive(folder, sizes | {MANIFEST: (folder / MANIFEST).stat().st_size}, inside=job.name)
    except FileNotFoundError:
        raise ExportNotFoundError(f"the export of job {job.id} is being replaced: ask again") from None
    headers = {"Content-Length": str(archive.size_bytes), "Content-Disposition": _disposition(job, manifest)}
    return StreamingResponse(archive.chunks(), media_type=TAR, headers=headers)


def _disposition(job: Job, manifest: ExportManifest) -> str:
    return f'attachment; filename="{job.name}-step-{manifest.step}.tar"'


def _why(job: Job) -> str:
    by_hand = f"`bigbatch export {job.id}` on the server's machine makes one of the newest checkpoint"
    if job.spec is not None and not job.spec.export.at_end:
        return f"job {job.id} has export: {{at_end: false}}; {by_hand}"
    if job.status.is_terminal:
        return f"job {job.id} is {job.status} and has no exported model, its alerts may say why; {by_hand}"
    return f"job {job.id} is {job.status}: its model is exported when the last step is done"
