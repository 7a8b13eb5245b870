import asyncio
import inspect

import pytest

from server.client import AsyncClient, Client
from server.client.errors import RefusedError
from tests.server.http.routes.test_logs import put_log
from tests.serving import TINY, Served, run_records

NOT_ASKED = {"close", "reconnect", "link", "export", "events"}
"""What stays with the synchronous client: it asks nothing, or hands out a connection."""


def test_the_same_can_be_asked_as_of_the_synchronous_client() -> None:
    def public(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}

    assert public(Client) - public(AsyncClient) == NOT_ASKED
    assert inspect.signature(AsyncClient.amend) == inspect.signature(Client.amend)


def test_a_job_is_submitted_listed_followed_and_refused_without_blocking_the_loop(served: Served) -> None:
    async def course() -> tuple[list[str], list[str]]:
        async with AsyncClient(served.settings.home, served.url) as client:
            job, ticks = await client.submit(TINY), asyncio.create_task(asyncio.sleep(0))
            served.push(job["id"], run_records(3))
            listed = [each["id"] async for each in client.jobs(status="SUCCEEDED")]
            assert listed == [job["id"]]
            assert ticks.done()
            with pytest.raises(RefusedError, match="is SUCCEEDED"):
                await client.pause(job["id"])
            first, second = await asyncio.gather(client.job(job["id"]), client.metrics(job["id"]))
            assert second["steps"] == [1, 2, 3]
            put_log(served, job["id"], "one\ntwo\n")
            assert [line async for line in client.logs(job["id"], lines=1)] == ["two"]
            names = [event.name async for event in client.follow(job["id"])]
            return [first["status"]], names

    told, names = asyncio.run(course())
    assert told == ["SUCCEEDED"]
    assert (names.count("step"), names[-1]) == (3, "end")
