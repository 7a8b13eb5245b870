"""What the routes share: the parts of the running server, and the job whose id is in the path."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request

from server.callers import Caller
from server.jobs.job import Job
from server.reach import Reach
from server.scheduler import Scheduler
from server.settings import Settings
from server.storage.audit import Audit
from server.storage.database import Database
from server.storage.histories import Histories
from server.storage.jobs import Store
from server.storage.records import Records
from server.storage.runs import RunFolders
from server.storage.tokens import Tokens

from .access.login import Login
from .bell import Bell
from .exposition import Exposition
from .feed import Feed


@dataclass(frozen=True, slots=True)
class Server:
    """The parts of a running server."""

    settings: Settings
    database: Database
    store: Store
    records: Records
    histories: Histories
    tokens: Tokens
    audit: Audit
    login: Login
    folders: RunFolders
    scheduler: Scheduler
    bell: Bell
    feed: Feed
    exposition: Exposition
    reach: Reach


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


ServerParts = Annotated[Server, Depends(_server)]


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


Asking = Annotated[Caller, Depends(_caller)]
"""Who sent the request."""


def _job(job_id: Annotated[str, Path(description="The whole id of a job.")], server: ServerParts) -> Job:
    return server.store.get(job_id)


NamedJob = Annotated[Job, Depends(_job)]
"""The job of the path; 404 where there is none."""
