import asyncio
from contextlib import ExitStack

from server.http.bell import Bell


def test_a_stream_hears_of_its_own_job_and_one_of_all_jobs_hears_of_each() -> None:
    async def listen() -> tuple[set[str], set[str]]:
        bell, heard = Bell(), set[str]()
        with bell.listen("one") as own, bell.listen() as every:
            for job_id in ("one", "two", "one"):
                await asyncio.to_thread(bell.ring, job_id)
            while heard != {"one", "two"}:
                await asyncio.wait_for(every.wait(), 5)
                heard |= every.take()
            return own.take(), heard

    assert asyncio.run(listen()) == ({"one"}, {"one", "two"})


def test_what_was_taken_is_not_told_again() -> None:
    async def listen() -> list[set[str]]:
        bell = Bell()
        with bell.listen() as listener:
            bell.ring("one")
            await asyncio.wait_for(listener.wait(), 5)
            return [listener.take(), listener.take()]

    assert asyncio.run(listen()) == [{"one"}, set()]


def test_when_the_server_stops_every_stream_is_woken() -> None:
    async def listen() -> bool:
        bell = Bell()
        with bell.listen("one") as listener:
            bell.close()
            await asyncio.wait_for(listener.wait(), 5)
            return bell.is_closed

    assert asyncio.run(listen())


def test_changes_that_follow_each_other_closely_wake_a_stream_together() -> None:
    async def listen() -> list[set[str]]:
        bell = Bell()
        heard = []
        with bell.listen() as listener:
            for job_ids in (["one"], ["two", "three", "two"]):
                for job_id in job_ids:
                    bell.ring(job_id)
                await asyncio.wait_for(listener.wait(), 5)
                heard.append(listener.take())
        return heard

    assert asyncio.run(listen()) == [{"one"}, {"two", "three"}]


def test_every_stream_is_woken_however_many_there_are_and_requests_come_in_between() -> None:
    async def listen() -> tuple[int, int]:
        bell, turns = Bell(), 0
        with ExitStack() as stack:
            listeners = [stack.enter_context(bell.listen("one")) for _ in range(200)]
            bell.ring("one")
            while not all(listener.is_woken for listener in listeners):
                await asyncio.sleep(0)
                turns += 1
            return sum("one" in listener.take() for listener in listeners), turns

    woken, turns = asyncio.run(listen())
    assert woken == 200
    assert turns >= 10


def test_what_is_kept_of_a_job_is_forgotten_before_any_stream_hears_of_its_change() -> None:
    async def listen() -> tuple[list[str], set[str]]:
        forgotten: list[str] = []
        bell = Bell(forgotten.append)
        with bell.listen() as listener:
            bell.ring("one")
            await asyncio.wait_for(listener.wait(), 5)
            return forgotten, listener.take()

    assert asyncio.run(listen()) == (["one"], {"one"})
