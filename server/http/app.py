"""The FastAPI application, made of the parts of a server."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import NamedTuple

from fastapi import Depends, FastAPI
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from server.cluster.existing import ExistingCluster, token_of_environment
from server.cluster.local import LocalCluster
from server.cluster.protocol import Cluster
from server.jobs.job import Job
from server.jobs.order import Rules
from server.logs import about, start_request
from server.reach import Reach
from server.scheduler import Scheduler
from server.settings import Settings
from server.storage.audit import Audit
from server.storage.database import Database
from server.storage.histories import Histories
from server.storage.home import close_home
from server.storage.jobs import Store
from server.storage.records import Records
from server.storage.runs import RunFolders
from server.storage.tokens import Tokens

from .access.auditing import Auditor
from .access.guard import Guard
from .access.login import Login
from .access.names import KnownNames
from .access.prefix import RootPath
from .bell import Bell
from .context import Server
from .description import describe
from .exposition import Exposition
from .feed import Feed
from .parameters import check_query
from .problems import install
from .routes import (
    administration,
    checkpoints,
    docs,
    events,
    exports,
    jobs,
    logs,
    metrics,
    pages,
    queue,
    submission,
    sweeps,
    verbs,
)

log = logging.getLogger(__name__)
_OF_JOB = re.compile(r"/v1/jobs/([\w-]+)")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # Browsers ask each time; a file that has not changed is answered by its ETag alone.
    "Cache-Control": "no-cache",
}


class _Base(NamedTuple):
    """What a server has before it serves."""

    settings: Settings
    database: Database
    store: Store
    records: Records
    tokens: Tokens
    audit: Audit
    auditor: Auditor
    login: Login
    cluster: Cluster


def create_app(settings: Settings, cluster: Cluster | None = None) -> FastAPI:
    """Make the application; without `cluster`, jobs run on the one that the settings name, or else on a local one."""
    base = _open(settings, cluster or _cluster(settings))
    app = FastAPI(
        title="bigbatch",
        version=version("bigbatch"),
        docs_url=None,
        redoc_url=None,
        lifespan=lambda app: _serving(app, base),
        dependencies=[Depends(check_query)],
        separate_input_output_schemas=False,  # one JobSpec in the description: what is sent is what is answered
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        redirect_slashes=False,  # the redirect would name the scheme and the path that a proxy has changed
    )
    install(app)
    of_jobs = (submission, sweeps, jobs, verbs, queue, checkpoints)
    for part in (*of_jobs, events, logs, metrics, exports, administration, docs, pages):
        app.include_router(part.router)
    describe(app)
    app.mount("/static", StaticFiles(directory=pages.STATIC))
    _add_middleware(app, base)
    return app


def _open(settings: Settings, cluster: Cluster) -> _Base:
    close_home(settings)
    database = Database(settings.database)
    tokens, audit = Tokens(database, settings.admin_token), Audit(database)
    auditor = Auditor(audit)
    login = Login(tokens, auditor, f"bigbatch-{settings.port}", settings.root_path)
    return _Base(settings, database, Store(database), Records(database), tokens, audit, auditor, login, cluster)


@contextlib.asynccontextmanager
async def _serving(app: FastAPI, base: _Base) -> AsyncIterator[None]:
    """Have the scheduler take its turns while requests are served."""
    server = app.state.server = _server(base)
    store, folders, scheduler = server.store, server.folders, server.scheduler
    await asyncio.to_thread(folders.discard_unstored)
    for job in await asyncio.to_thread(store.unfinished):
        await asyncio.to_thread(_prepare, folders, job)
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(scheduler.run(), name="scheduler")
        yield
        scheduler.stop()
        await loop
    await asyncio.to_thread(_leave, store, base.cluster)
    base.database.close()


def _server(base: _Base) -> Server:
    """Connect the parts; the bell rings on the event loop that this is called on."""
    settings, store, records = base.settings, base.store, base.records
    feed = Feed(store, records)
    bell = Bell(feed.forget)
    store.on_change = records.on_change = bell.ring
    folders = RunFolders(settings, store, records)
    rules = Rules(settings.priority_per_hour, settings.jobs_per_owner)
    scheduler = Scheduler(store, base.cluster, folders, rules=rules)
    records.on_push = scheduler.hear
    return Server(
        settings=settings,
        database=base.database,
        store=store,
        records=records,
        histories=Histories(base.database),
        tokens=base.tokens,
        audit=base.audit,
        login=base.login,
        folders=folders,
        scheduler=scheduler,
        bell=bell,
        feed=feed,
        exposition=Exposition(store, scheduler, bell),
        reach=Reach(settings),
    )


def _add_middleware(app: FastAPI, base: _Base) -> None:
    """Add what each request passes, the innermost first."""
    settings, of_job = base.settings, base.store.token_digest
    app.add_middleware(Guard, tokens=base.tokens, login=base.login, auditor=base.auditor, job_digest=of_job)
    if settings.names:
        app.add_middleware(KnownNames, names=settings.names)
    app.add_middleware(_Headers)
    app.add_middleware(_JobInLog)
    if settings.root_path:
        app.add_middleware(RootPath, root_path=settings.root_path)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))


def _cluster(settings: Settings) -> Cluster:
    if settings.ray_address is None:
        return LocalCluster(settings.ray)
    return ExistingCluster(settings.ray_address, token_of_environment())


def _prepare(folders: RunFolders, job: Job) -> None:
    """Write anew what a run needs of this server. Where that fails, it is one job's failure."""
    try:
        folders.prepare(job)
    except (OSError, ValueError):
        with about(job.id, job.attempt):
            log.exception("the job's run folder cannot be written, so its run may not find this server")


def _leave(store: Store, cluster: Cluster) -> None:
    """End the cluster with the server, unless a job runs on it: the next server finds both again."""
    active = [job for job in store.unfinished() if job.status.is_active]
    if active:
        for job in active:
            with about(job.id, job.attempt):
                log.warning("%s still runs on the cluster, which is left up for the next `bigbatch serve`", job.name)
    else:
        cluster.shutdown()
    cluster.close()


class _JobInLog:
    """Has what is logged while a request is answered name the job that the request is about."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _OF_JOB.match(scope["path"]) if scope["type"] == "http" else None
        start_request(found and found[1])
        await self._app(scope, receive, send)


class _Headers:
    """Adds the security headers to every answer that does not set its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *(each for each in added if each[0] not in present)]
            await send(message)

        await self._app(scope, receive, send_with_headers)
