from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import ParameterError
from server.jobs.job import Job
from server.storage.database import Database
from server.storage.jobs import Store
from server.storage.listing import Cursor, Sort, Wanted
from tests.serving import TINY
from workers.contract.documents import parse_spec


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Twelve jobs, many of them equal in what a list is sorted by."""
    database = Database(tmp_path_factory.mktemp("listing") / "test.db")
    store = Store(database)
    for number in range(12):
        name, priority = ("a_b", "aXb", "c")[number % 3], number % 2
        spec = parse_spec(TINY | {"name": name, "priority": priority, "labels": {"n": str(number % 4), "of": "12"}})
        job, _ = store.create(spec, owner=("ann", "bob")[number % 2])
        if number > 7:
            store.change(job.id, lambda job: job.become(job.status.CANCELLED, job.created_at))
    yield store
    database.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sort=st.sampled_from(list(Sort)), limit=st.integers(1, 13))
def test_pages_of_any_length_in_any_order_show_every_job_once(store: Store, sort: Sort, limit: int) -> None:
    found, after = list[Job](), None
    while page := store.page(sort=sort, limit=limit, after=after):
        found += page
        after = Cursor.read(Cursor.after(page[-1], sort).text(sort), sort)
    keys = [(getattr(job, sort.field), job.id) for job in found]
    assert keys == sorted(keys, reverse=sort.is_backwards)
    assert len(found) == 12


def test_a_job_that_is_submitted_between_two_pages_moves_no_other(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    store = Store(database)
    ids = [store.create(parse_spec(TINY))[0].id for _ in range(4)]
    first = store.page(sort=Sort.NAME, limit=2)
    store.create(parse_spec(TINY | {"name": "a"}))
    rest = store.page(sort=Sort.NAME, after=Cursor.after(first[-1], Sort.NAME))
    assert [job.id for job in [*first, *rest]] == ids
    database.close()


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Wanted(), 12),
        (Wanted(name="a_b"), 4),
        (Wanted(name="%"), 0),
        (Wanted(owner="ann"), 6),
        (Wanted(labels=["n=1", "of"]), 3),
        (Wanted(labels=["n=1", "n=2"]), 0),
        (Wanted(owner="ann", labels=["n=0"], name="c"), 1),
    ],
)
def test_only_jobs_that_meet_every_condition_are_listed(store: Store, wanted: Wanted, count: int) -> None:
    assert len(store.page(wanted)) == count


@pytest.mark.parametrize("text", ["", "nonsense", "1qx92r16q7na", "W10=", Cursor("x", "y").text(Sort.NAME), "é"])
def test_what_is_no_cursor_of_this_list_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ParameterError, match="send the next_cursor of the page before, with the same sort"):
        Cursor.read(text, Sort.NEWEST)
