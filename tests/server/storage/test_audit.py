from pathlib import Path

from server.callers import ADMIN, Caller, Role
from server.storage.audit import Audit
from server.storage.database import Database


def test_deeds_are_read_the_newest_first_in_pages_and_by_job(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    audit = Audit(database)
    audit.add(ADMIN, "POST /v1/jobs", "a", 201, "192.0.2.1")
    audit.add(Caller("ada", Role.READER), "POST /v1/jobs/a/cancel", "a", 403, None)
    audit.add(ADMIN, "POST /v1/tokens", None, 201, None)
    newest, middle = audit.page(2)
    (oldest,) = audit.page(2, before=middle.seq)
    assert [deed.action for deed in (newest, middle, oldest)] == [
        "POST /v1/tokens",
        "POST /v1/jobs/a/cancel",
        "POST /v1/jobs",
    ]
    assert (middle.caller, middle.role, middle.job_id, middle.status) == ("ada", Role.READER, "a", 403)
    assert (middle.address, oldest.address) == (None, "192.0.2.1")
    assert audit.page(10, job_id="a") == [middle, oldest]
    database.close()
