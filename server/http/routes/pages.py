"""What a browser or a supervisor asks for: the dashboard, the API's description, health."""

import html
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from server.errors import NotReadyError
from server.http.context import ServerParts

STATIC = Path(__file__).parents[2] / "static"
DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"
router = APIRouter(include_in_schema=False)


@router.get("/")
@router.get("/jobs/{job_id}")
def dashboard(server: ServerParts) -> Response:
    """Serve the dashboard; it reads the path itself. The commands that it shows need the server's home folder."""
    page = (STATIC / "index.html").read_text()
    places = {"{home}": server.settings.home, "{demo}": DEMO}
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


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the server runs."""
    # Not being a plain function, it does not wait for a free thread where all of them wait for the database.
    return {"status": "ok"}


@router.get("/readyz")
def readyz(server: ServerParts) -> dict[str, str]:
    """Say that the server can store and start jobs; 503 with the reasons while it cannot."""
    obstacles = [server.database.obstacle(), server.scheduler.obstacle]
    if found := [obstacle for obstacle in obstacles if obstacle is not None]:
        raise NotReadyError("; ".join(found))
    return {"status": "ok"}
