from pathlib import Path

from sqlalchemy import text

from server.storage.database import Database


def test_readers_see_a_snapshot_while_another_thread_writes(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    with database.write() as db:
        db.execute(text("CREATE TABLE t (x INTEGER)"))
    count = text("SELECT count(*) FROM t")
    with database.read() as reader:
        assert reader.execute(count).scalar() == 0
        with database.write() as writer:
            writer.execute(text("INSERT INTO t VALUES (1)"))
        assert reader.execute(count).scalar() == 0
    with database.read() as reader:
        assert reader.execute(count).scalar() == 1
    database.close()
