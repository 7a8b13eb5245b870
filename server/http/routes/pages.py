"""What a browser or a supervisor asks for: the dashboard, the API's description, health."""

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from server.errors import ClusterUnreachableError
from server.http.context import ServerParts

STATIC = Path(__file__).parents[2] / "static"
router = APIRouter(include_in_schema=False)


@router.get("/")
@router.get("/jobs/{job_id}")
def dashboard() -> Response:
    """Serve the dashboard; it reads the path itself."""
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """Say that the server runs."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(server: ServerParts) -> dict[str, str]:
    """Say that the server can start jobs; 503 with the reason while it cannot."""
    if server.scheduler.obstacle is not None:
        raise ClusterUnreachableError(server.scheduler.obstacle)
    return {"status": "ok"}
