"""What a browser or a supervisor asks for: the dashboard, the API's description, health."""

import html
import time
from pathlib import Path

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import HTMLResponse, Response

from server.errors import NotReadyError
from server.http.context import ServerParts

STATIC = Path(__file__).parents[2] / "static"
DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"
_LONGEST_TURN_S = 120.0
"""A turn asks the cluster several times, with a limit of time each."""
router = APIRouter(include_in_schema=False)


@router.get("/")
@router.get("/jobs/{job_id}")
def dashboard(server: ServerParts) -> Response:
    """Serve the dashboard; it reads the path itself. The commands that it shows need the server's home folder."""
    page = (STATIC / "index.html").read_text()
    places = {"{home}": server.settings.home, "{demo}": DEMO, "{root}": server.settings.root_path}
    for place, path in places.items():
        page = page.replace(place, html.escape(str(path)))
    return HTMLResponse(page)


@router.post("/login")
async def log_in(request: Request, server: ServerParts) -> Response:
    """Open a session for the token in the form, and go to the page that was asked for."""
    return await server.login.by_form(request)


@router.post("/logout")
async def log_out(request: Request, server: ServerParts) -> Response:
    """End the session of the browser, and show the form that asks for a token."""
    return await server.login.log_out(request)


@router.get("/metrics")
def figures(server: ServerParts) -> Response:
    """Answer Prometheus, which shows a token as every client does: names and losses of jobs are not for everybody."""
    return Response(server.exposition.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the server runs."""
    # Not being a plain function, it does not wait for a free thread where all of them wait for the database.
    return {"status": "ok"}


@router.get("/readyz")
def readyz(server: ServerParts) -> dict[str, str]:
    """Say that the server can store and start jobs; 503 with the reasons while it cannot."""
    obstacles = [server.database.recent_obstacle(), server.scheduler.obstacle]
    silence_s = time.monotonic() - server.scheduler.turned_s
    if silence_s > _LONGEST_TURN_S:
        obstacles.append(
            f"the scheduler has not ended a turn for {silence_s:.0f} s: look for its last words in the log"
        )
    if found := [obstacle for obstacle in obstacles if obstacle is not None]:
        raise NotReadyError("; ".join(found))
    return {"status": "ok"}
