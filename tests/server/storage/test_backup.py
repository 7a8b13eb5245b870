import fcntl
import json
import sqlite3
import stat
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from server.errors import BackupError
from server.settings import Settings
from server.storage.backup import back_up, restore
from tests.serving import Served, run_records, serving
from workers.contract.push import ControlPlane


def push_as_the_run_does(served: Served, control: ControlPlane, count: int) -> int:
    """Push the first records of a run with the token of its control file; return the number that is acknowledged."""
    url = f"{served.url}/v1/jobs/{control.url.split('/')[-2]}/events"
    headers = {"Authorization": f"Bearer {control.token}"}
    body = {"records": run_records(20)[:count]}
    answer = httpx.post(url, json=body, headers=headers, trust_env=False).raise_for_status()
    return int(answer.json()["acknowledged"])


def test_a_server_on_a_restored_home_goes_on_with_the_jobs_that_ran_when_it_was_backed_up(tmp_path: Path) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "backup.tar"
    with serving(old) as served:
        ended, running = served.submit(name="ended")["id"], served.submit(name="running")["id"]
        served.push(ended, run_records(3))
        control = ControlPlane.model_validate_json((served.settings.run_folder(running) / "control.json").read_text())
        assert push_as_the_run_does(served, control, 8) == 8
        checkpoint = served.settings.run_folder(running) / "checkpoints" / "step-00000001-a1" / "shard"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_bytes(bytes(1_000_000))
        assert back_up(served.settings, file) == 2
        assert push_as_the_run_does(served, control, 10) == 10  # more than the backup knows
        token = served.token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_size < 1_000_000
    assert restore(file, Settings(new)) == 2
    with serving(new) as served:
        assert served.token == token
        assert (served.job(ended)["status"], served.job(running)["status"]) == ("SUCCEEDED", "RUNNING")
        assert push_as_the_run_does(served, control, 9) == 9  # from where the restored server is
        assert push_as_the_run_does(served, control, 23) == 23
        assert served.job(running)["status"] == "SUCCEEDED"
        assert len(served.http.get(f"/v1/jobs/{running}/metrics").json()["steps"]) == 20


def test_a_backup_is_of_one_moment_however_much_is_written_meanwhile(tmp_path: Path) -> None:
    with serving(tmp_path / "home") as served:
        job_id = served.submit()["id"]
        stop = threading.Event()

        def write() -> None:
            records, count = run_records(2_000), 0
            while not stop.is_set() and count < len(records) - 1:
                count += 20
                served.push(job_id, records[count - 20 : count])

        writer = threading.Thread(target=write)
        writer.start()
        for number in range(5):
            back_up(served.settings, tmp_path / f"{number}.tar")
        stop.set()
        writer.join()
    for number in range(5):
        home = Settings(tmp_path / f"restored-{number}")
        restore(tmp_path / f"{number}.tar", home)
        with closing(sqlite3.connect(home.database)) as db:
            [(acknowledged,)] = db.execute("SELECT acknowledged FROM jobs").fetchall()
            [(stored,)] = db.execute("SELECT count(*) FROM records").fetchall()
        assert stored == acknowledged


def test_a_home_with_a_database_is_not_written_over(tmp_path: Path, served: Served) -> None:
    file = tmp_path / "backup.tar"
    back_up(served.settings, file)
    with pytest.raises(BackupError, match="is there already: move it away, or choose another folder"):
        restore(file, served.settings)


def test_nothing_is_restored_below_a_server_that_runs_and_has_lost_its_database(tmp_path: Path, served: Served) -> None:
    home, file = tmp_path / "other", tmp_path / "backup.tar"
    back_up(served.settings, file)
    home.mkdir()
    with Settings(home).lock.open("a") as lock:  # as `bigbatch serve` holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BackupError, match=r"a server runs on .*: stop it, and restore then"):
            restore(file, Settings(home))
    assert not Settings(home).database.exists()
    restore(file, Settings(home))
    assert Settings(home).database.exists()


def test_what_a_home_still_has_of_its_runs_stays_when_its_lost_database_is_restored(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "backup.tar"
    with serving(home) as served:
        job_id = served.submit()["id"]
        back_up(served.settings, file)
        journal = served.settings.run_folder(job_id) / "events.jsonl"
    journal.write_text("newer\n")
    for database in home.glob("bigbatch.db*"):
        database.unlink()
    (home / "bigbatch.db-wal").touch()
    with pytest.raises(BackupError, match=r"bigbatch\.db-wal is there already: move it away"):
        restore(file, Settings(home))
    (home / "bigbatch.db-wal").unlink()
    restore(file, Settings(home))
    assert journal.read_text() == "newer\n"
    with serving(home) as served:
        assert served.job(job_id)["name"] == "tiny"


@pytest.mark.parametrize("fault", ["no home", "damaged"])
def test_what_cannot_be_backed_up_is_named_and_leaves_no_file(tmp_path: Path, fault: str) -> None:
    home = Settings(tmp_path / "home")
    home.home.mkdir()
    if fault == "damaged":
        with closing(sqlite3.connect(home.database)) as db, db:
            db.execute("CREATE TABLE t (x TEXT)")
            db.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,) for _ in range(100)])
        content = bytearray(home.database.read_bytes())
        content[8192:16384] = b"\xff" * 8192
        home.database.write_bytes(content)
    with pytest.raises(BackupError, match="there is no database at" if fault == "no home" else "is damaged"):
        back_up(home, tmp_path / "backup.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("content", ["text", "other"])
def test_a_file_that_is_no_backup_is_named_and_leaves_no_database(tmp_path: Path, content: str) -> None:
    file, home = tmp_path / "file.tar", Settings(tmp_path / "home")
    file.write_text(json.dumps({"no": "archive"}))
    if content == "other":
        with tarfile.open(tmp_path / "other.tar", "w") as archive:
            archive.add(file, "notes.json")
        file = tmp_path / "other.tar"
    with pytest.raises(BackupError, match="name a file that `bigbatch backup` wrote"):
        restore(file, home)
    assert [path.name for path in home.home.iterdir()] == ["server.lock"]


def test_a_file_with_names_that_lead_out_of_the_home_writes_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.add(tmp_path / "x", "../../outside")
    with pytest.raises(BackupError, match="cannot be read"):
        restore(tmp_path / "bad.tar", Settings(tmp_path / "deep" / "home"))
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "deep" / "outside").exists()
