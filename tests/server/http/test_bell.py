import asyncio

from server.http.bell import Bell


def test_a_stream_hears_of_its_own_job_and_one_of_all_jobs_hears_of_each() -> None:
    async def listen() -> tuple[set[str], set[str]]:
        bell = Bell()
        with bell.listen("one") as own, bell.listen() as every:
            for job_id in ("one", "two", "one"):
                await asyncio.to_thread(bell.ring, job_id)
            await asyncio.wait_for(every.wait(), 5)
            return own.take(), every.take()

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
