"""What the routes share: the parts of the running server, and the job that a path names."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from server.bell import Bell
from server.jobs import Job
from server.runs import RunFolders
from server.scheduler import Scheduler
from server.series import Histories
from server.store import Store


@dataclass(frozen=True, slots=True)
class Server:
    """The parts of a running server."""

    store: Store
    histories: Histories
    folders: RunFolders
    scheduler: Scheduler
    bell: Bell


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


ServerParts = Annotated[Server, Depends(_server)]


def _job(job_id: str, server: ServerParts) -> Job:
    return server.store.get(job_id)


NamedJob = Annotated[Job, Depends(_job)]
"""The job of the path; 404 where there is none."""
