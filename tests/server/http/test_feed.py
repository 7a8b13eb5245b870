import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from server.errors import DatabaseError
from server.http.feed import Feed
from server.jobs.status import JobStatus
from server.storage.database import Database
from server.storage.records import NextRecords, Records
from tests.server.storage.house import House
from tests.serving import run_records, status

Result = TypeVar("Result")


class Counting(Records):
    """The records, and how often they are read."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.reads, self.is_locked = 0, False

    def lock(self, *, is_locked: bool) -> None:
        self.is_locked = is_locked

    def read_after(self, *asked: Any) -> NextRecords:
        self.reads += 1
        if self.is_locked:
            raise DatabaseError("locked")
        return super().read_after(*asked)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "test.db")
    yield house
    house.database.close()


def with_feed(house: House, use: Callable[[Feed, Counting], Awaitable[Result]]) -> Result:
    records = Counting(house.database)

    async def run() -> Result:
        return await use(Feed(house.store, records), records)

    return asyncio.run(run())


def test_however_many_streams_are_at_the_same_record_it_is_read_and_encoded_once(house: House) -> None:
    house.ingest(*run_records(5))

    async def use(feed: Feed, records: Counting) -> None:
        pages = await asyncio.gather(*(feed.page(house.job.id, 0) for _ in range(200)))
        assert records.reads == 1
        assert len({id(page.events) for page in pages}) == 1
        assert (pages[0].last, pages[0].is_all, pages[0].status) == (8, True, JobStatus.SUCCEEDED)
        assert pages[0].events.count(b"event: step\n") == 5
        await feed.page(house.job.id, 3)
        assert records.reads == 2

    with_feed(house, use)


def test_a_job_that_changed_is_read_anew(house: House) -> None:
    house.ingest(status(1, "RUNNING"))

    async def use(feed: Feed, records: Counting) -> None:
        assert (await feed.page(house.job.id, 1)).events == b""
        house.ingest(*run_records(1)[:2])
        feed.forget("another")
        assert (await feed.page(house.job.id, 1)).events == b""
        feed.forget(house.job.id)
        assert (await feed.page(house.job.id, 1)).last == 2
        assert records.reads == 2

    with_feed(house, use)


def test_a_page_of_long_records_is_bounded_by_its_bytes_and_sent_in_pieces(house: House) -> None:
    when = {"kind": "log", "time": "2026-01-31T12:00:00Z"}
    for number in range(1, 31):
        house.ingest(when | {"seq": number, "text": "x" * 60_000})

    async def use(feed: Feed, _: Counting) -> None:
        page = await feed.page(house.job.id, 0)
        assert len(page.events) < 2**18 + 61_000
        pieces = list(page.pieces())
        assert b"".join(pieces) == page.events
        assert max(map(len, pieces)) <= 2**14
        seen, after = 1, page.last
        while not page.is_all:
            page = await feed.page(house.job.id, after)
            seen, after = seen + 1, page.last
        assert (seen, after) == (6, 30)

    with_feed(house, use)


def test_a_reader_that_goes_away_does_not_take_the_page_from_the_others(house: House) -> None:
    house.ingest(*run_records(2))

    async def use(feed: Feed, _: Counting) -> None:
        first = asyncio.create_task(feed.page(house.job.id, 0))
        second = asyncio.create_task(feed.page(house.job.id, 0))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).last == 5

    with_feed(house, use)


def test_a_page_that_could_not_be_read_is_read_again_by_the_next_one(house: House) -> None:
    house.ingest(*run_records(2))

    async def use(feed: Feed, records: Counting) -> None:
        records.lock(is_locked=True)
        found = await asyncio.gather(*(feed.page(house.job.id, 0) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(each, DatabaseError) for each in found)
        records.lock(is_locked=False)
        assert (await feed.page(house.job.id, 0)).last == 5

    with_feed(house, use)


def test_a_job_that_was_deleted_is_told_as_such(house: House) -> None:
    async def use(feed: Feed, _: Counting) -> None:
        assert (await feed.page("gone", 7)).status is None
        assert await feed.job("gone") == b'event: deleted\ndata: {"id":"gone"}\n\n'

    with_feed(house, use)
