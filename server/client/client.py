"""The REST API from Python: everything that the command line says to a server."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import httpx

from server.settings import default_home
from workers.contract.tls import trusting_only

from .address import find_server
from .errors import JsonObject, NoSuchJobError, RefusedError, TokenRefusedError, UnreachableError
from .events import Event, parse_events

SILENCE_S = 45.0  # the server breaks the silence of a stream more often than this
PATIENCE = timedelta(minutes=5)
PAUSE_S = 1.0
BUSY_S = 60.0  # how long a request is repeated that a server could not store and asks for again
_DIRECTLY = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}  # never through a proxy


class Client:
    """A server, found by its home folder unless `url` and `token` are given.

    Args:
        home: the folder; by default the one that BIGBATCH_HOME names, or ~/.bigbatch.
        url: the address of another server, or a link that `bigbatch serve` printed.
        token: the token of that server.

    Every method that asks the server raises `UnreachableError` where none answers, and `RefusedError` where it refuses.
    """

    def __init__(self, home: Path | None = None, url: str | None = None, token: str | None = None) -> None:
        self._home, self._given = home or default_home(), (url, token)
        self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def reconnect(self) -> None:
        """Look for the server again: it may have a new port or a new token by now."""
        self._http.close()
        self._connect()

    def link(self, path: str = "/") -> str:
        """Return an address of the dashboard with the token that lets a browser in; it is as secret as the token."""
        return f"{self.url}{path}?token={self.token}"

    def answers(self, path: str) -> bool:
        """Whether a bigbatch server says yes: `/healthz` asks if it runs, `/readyz` if it can start jobs."""
        try:
            return self._request("GET", path) == {"status": "ok"}
        except (UnreachableError, RefusedError):
            return False

    def submit(self, document: JsonObject) -> JsonObject:
        """Submit a job exactly once, even if the first answer is lost."""
        return self._create("/v1/jobs", document)

    def plan(self, document: JsonObject) -> JsonObject:
        """Have a job checked as if it were submitted, and return its plan (`workers.planning.plan.Plan`)."""
        return self._request("POST", "/v1/jobs", params={"dry_run": True}, json=document)

    def clone(self, prefix: str, from_step: int | None = None, changes: JsonObject | None = None) -> JsonObject:
        """Submit a job again, exactly once, with other settings; with `from_step`, it goes on from that checkpoint."""
        body = {"from_step": from_step, "set": changes or {}}
        return self._create(f"/v1/jobs/{self.job(prefix)['id']}/clone", body)

    def _create(self, path: str, body: JsonObject) -> JsonObject:
        headers = {"Idempotency-Key": uuid4().hex}
        try:
            return self._request("POST", path, json=body, headers=headers)
        except UnreachableError:
            return self._request("POST", path, json=body, headers=headers)

    def submit_sweep(self, document: JsonObject) -> JsonObject:
        """Submit a job in many variants ({job, grid} or {job, list}), each exactly once; return {id, jobs}."""
        return self._create("/v1/sweeps", document)

    def sweeps(self) -> list[JsonObject]:
        """Return all sweeps, the newest first, each with how many of its jobs are in which status."""
        listed: list[JsonObject] = self._request("GET", "/v1/sweeps")["sweeps"]
        return listed

    def sweep(self, sweep_id: str) -> JsonObject:
        """Return the jobs of a sweep: {id, jobs}."""
        return self._request("GET", f"/v1/sweeps/{quote(sweep_id, safe='')}")

    def jobs(
        self,
        status: str | None = None,
        limit: int | None = None,
        page: int = 100,
        *,
        labels: Sequence[str] = (),
        name: str | None = None,
        owner: str | None = None,
        sort: str = "-created",
    ) -> Iterator[JsonObject]:
        """Yield jobs, in pages of so many.

        Args:
            status: only jobs of this status.
            limit: at most so many.
            page: so many are asked for at a time.
            labels: only jobs with all of these, each `key` or `key=value`.
            name: only jobs with this text in their names.
            owner: only jobs that this owner submitted.
            sort: created, name, owner, status or priority; with a minus before it, the last one comes first.
        """
        conditions = {"status": status, "name": name, "owner": owner, "label": list(labels) or None}
        query = {"limit": min(limit or page, page), "sort": sort}
        return islice(self._pages(query | {key: value for key, value in conditions.items() if value}), limit)

    def job(self, prefix: str) -> JsonObject:
        """Return the job whose id is `prefix`, or begins with it and no other does.

        Raises:
            NoSuchJobError: no id begins with `prefix`, or several do.
        """
        if not prefix:
            raise NoSuchJobError("the id of the job is empty: `bigbatch jobs` lists the jobs")
        try:
            return self._request("GET", f"/v1/jobs/{quote(prefix, safe='', errors='surrogateescape')}")
        except RefusedError as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND:
                raise
        ids = [job["id"] for job in self.jobs() if job["id"].startswith(prefix)]
        if len(ids) > 1:
            some = ", ".join(ids[:5]) + ", ..." * (len(ids) > 5)
            raise NoSuchJobError(f"{len(ids)} job ids begin with {prefix!r} ({some}): give more of the id")
        if not ids:
            raise NoSuchJobError(f"no job id begins with {prefix!r}: `bigbatch jobs` lists the jobs")
        return self._request("GET", f"/v1/jobs/{ids[0]}")

    def pause(self, prefix: str) -> JsonObject:
        """Ask that a job saves a checkpoint and gives its workers back."""
        return self._ask(prefix, "pause")

    def resume(self, prefix: str) -> JsonObject:
        """Have a paused job go on from its newest checkpoint, when its turn comes."""
        return self._ask(prefix, "resume")

    def checkpoint(self, prefix: str) -> JsonObject:
        """Ask a job that trains for a checkpoint; `checkpoint_step` names it once it is there."""
        return self._ask(prefix, "checkpoint")

    def cancel(self, prefix: str) -> JsonObject:
        """Ask that a job stops; a running one saves a checkpoint first."""
        return self._ask(prefix, "cancel")

    def retry(self, prefix: str) -> JsonObject:
        """Have a job that failed or was cancelled go on from its newest checkpoint, when its turn comes."""
        return self._ask(prefix, "retry")

    def queue(self, prefix: str) -> JsonObject:
        """Return where a job stands in the queue: position, waiting, priority, reason, starts_in_s."""
        return self._request("GET", f"/v1/jobs/{self.job(prefix)['id']}/queue")

    def checkpoints(self, prefix: str) -> list[JsonObject]:
        """Return the checkpoints of a job, the oldest first."""
        listed: list[JsonObject] = self._request("GET", f"/v1/jobs/{self.job(prefix)['id']}/checkpoints")["checkpoints"]
        return listed

    def delete_checkpoint(self, prefix: str, step: int) -> list[JsonObject]:
        """Remove the checkpoint of a step; return those that are left."""
        path = f"/v1/jobs/{self.job(prefix)['id']}/checkpoints/{step}"
        left: list[JsonObject] = self._request("DELETE", path)["checkpoints"]
        return left

    def amend(
        self, prefix: str, *, priority: int | None = None, labels: Mapping[str, str | None] | None = None
    ) -> JsonObject:
        """Change the priority of a job that waits, or labels of any; a label that is None is removed."""
        change = ({} if priority is None else {"priority": priority}) | {"labels": dict(labels or {})}
        return self._request("PATCH", f"/v1/jobs/{self.job(prefix)['id']}", json=change)

    def delete(self, prefix: str) -> JsonObject:
        """Delete a paused or ended job with its records and its run folder; return it as it was."""
        return self._request("DELETE", f"/v1/jobs/{self.job(prefix)['id']}")

    def _ask(self, prefix: str, verb: str) -> JsonObject:
        return self._request("POST", f"/v1/jobs/{self.job(prefix)['id']}/{verb}")

    def tokens(self) -> list[JsonObject]:
        """Return what is known of every token that was made and not revoked; only an admin may ask."""
        tokens: list[JsonObject] = self._request("GET", "/v1/tokens")["tokens"]
        return tokens

    def create_token(self, owner: str, role: str, expires_in_days: int) -> JsonObject:
        """Make a token for somebody; the answer is the only place where it can be read."""
        return self._request(
            "POST", "/v1/tokens", json={"owner": owner, "role": role, "expires_in_days": expires_in_days}
        )

    def revoke_token(self, token_id: str) -> None:
        """Have a token open nothing from now on."""
        self._send("DELETE", f"/v1/tokens/{quote(token_id, safe='')}")

    def rotate_admin_token(self) -> JsonObject:
        """Replace the token in the server's admin.token, and log out whoever used the old one."""
        return self._request("POST", "/v1/tokens/rotate-admin")

    def audit(self, job_id: str | None = None, limit: int = 100) -> list[JsonObject]:
        """Return the newest entries of the audit log, of one job or of all; only an admin may ask."""
        query = {"limit": limit} | ({"job_id": job_id} if job_id else {})
        deeds: list[JsonObject] = self._request("GET", "/v1/audit", params=query)["deeds"]
        return deeds

    @contextmanager
    def export(self, job_id: str) -> Iterator[Iterator[bytes]]:
        """Yield the pieces of the archive with a job's exported model.

        Raises:
            RefusedError: there is none.
            UnreachableError: the connection broke off, or there was none.
        """
        try:
            with self._http.stream("GET", f"/v1/jobs/{job_id}/export") as answer:
                if answer.is_error:
                    answer.read()
                    raise self._refusal(answer)
                yield answer.iter_raw()
        except httpx.TransportError as error:
            raise UnreachableError(self.url, _reason(error)) from None

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """Yield the job's events after record `after`, as they come, until the connection ends.

        Raises:
            UnreachableError: the connection broke off, or there was none.
        """
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        try:
            with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._refusal(answer)
                yield from parse_events(answer.iter_text())
        except httpx.TransportError as error:
            raise UnreachableError(self.url, _reason(error)) from None

    def logs(
        self,
        prefix: str,
        *,
        rank: int | None = None,
        attempt: int | None = None,
        lines: int = 200,
        follow: bool = False,
    ) -> Iterator[str]:
        """Yield what a process of a job printed, line by line.

        Args:
            prefix: the id of the job, or its beginning.
            rank: which worker; by default the driver, which prints what all workers print, after the name of each.
            attempt: which attempt; by default the newest one. 0 is the preparation of the job's text.
            lines: how many of the last lines.
            follow: go on with what is printed from now on, until the process has ended.

        Raises:
            RefusedError: there is no such log.
            UnreachableError: the connection broke off, or there was none.
        """
        wanted = {"rank": rank, "attempt": attempt, "lines": lines, "follow": follow}
        query = {name: value for name, value in wanted.items() if value is not None}
        path, patience = f"/v1/jobs/{self.job(prefix)['id']}/logs", httpx.Timeout(SILENCE_S, read=None)
        try:
            # A process may print nothing for hours.
            with self._http.stream("GET", path, params=query, timeout=patience) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._refusal(answer)
                yield from answer.iter_lines()
        except httpx.TransportError as error:
            raise UnreachableError(self.url, _reason(error)) from None

    def metrics(self, prefix: str, series: Sequence[str] = ("loss", "lr"), buckets: int = 1000) -> JsonObject:
        """Return series of a job's steps in so many buckets: the steps, and of each series min, max and last."""
        query = {"series": ",".join(series), "buckets": buckets}
        return self._request("GET", f"/v1/jobs/{self.job(prefix)['id']}/metrics", params=query)

    def follow(self, job_id: str, on_lost: Callable[[UnreachableError], None] = lambda _: None) -> Iterator[Event]:
        """Yield a job's events from its first to its last, over restarts of the server.

        Raises:
            UnreachableError: the server stayed away for longer than PATIENCE.
        """
        after, lost = 0, None
        while True:
            try:
                for event in self.events(job_id, after):
                    after, lost = event.id or after, None
                    yield event
                    if event.name == "end":
                        return
                error = UnreachableError(self.url, "it ended the stream")
            except UnreachableError as broken:
                error = broken
            if lost is None:
                lost = time.monotonic()
                on_lost(error)
            if time.monotonic() - lost > PATIENCE.total_seconds():
                raise error
            time.sleep(PAUSE_S)
            self.reconnect()

    def _connect(self) -> None:
        self._address = find_server(self._home, *self._given)
        self.url, self.token = self._address.url, self._address.token
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        certificate = self._address.certificate
        trusted = True if certificate is None else trusting_only(certificate)
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=SILENCE_S, mounts=_DIRECTLY, verify=trusted
        )

    def _refusal(self, answer: httpx.Response) -> RefusedError:
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            return TokenRefusedError(self.url, answer, self._address.source)
        return RefusedError(self.url, answer)

    def _pages(self, query: JsonObject) -> Iterator[JsonObject]:
        while True:
            answer = self._request("GET", "/v1/jobs", params=query)
            yield from answer["jobs"]
            if answer["next_cursor"] is None:
                return
            query["cursor"] = answer["next_cursor"]

    def _request(self, method: str, path: str, **options: Any) -> JsonObject:
        answer = self._send(method, path, **options)
        if "json" not in answer.headers.get("content-type", ""):
            raise self._refusal(answer)
        document: JsonObject = answer.json()
        return document

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                answer = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                raise UnreachableError(self.url, _reason(error)) from None
            wait_s = _asks_to_wait_s(answer)
            if wait_s is None or time.monotonic() + wait_s > deadline:
                break
            time.sleep(wait_s)
        if not answer.is_success:
            raise self._refusal(answer)
        return answer


def _asks_to_wait_s(answer: httpx.Response) -> int | None:
    """Return how long a server that has done nothing yet asks to wait before the same request; None otherwise."""
    told = answer.headers.get("Retry-After", "")
    return int(told) if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE and told.isdecimal() else None


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
