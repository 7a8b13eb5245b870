import json
from pathlib import Path

import pytest

from server.storage.runs import read_events
from tests.serving import run_records, serving


def test_the_records_of_a_file_are_read_up_to_an_unfinished_line(tmp_path: Path) -> None:
    lines = [json.dumps(record) for record in run_records(1200)]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + '\n{"seq": 1204, "kin')
    batches = list(read_events(tmp_path))
    assert [record.seq for batch in batches for record in batch] == list(range(1, 1204))
    assert max(len(batch) for batch in batches) == 500


def test_a_run_that_wrote_nothing_has_no_records(tmp_path: Path) -> None:
    assert [record for batch in read_events(tmp_path) for record in batch] == []


@pytest.mark.parametrize("lost", [False, True])
def test_the_next_server_tells_runs_its_new_address_and_keeps_their_tokens(tmp_path: Path, lost: bool) -> None:
    with serving(tmp_path) as first:
        job_id = first.submit()["id"]
        control = first.settings.run_folder(job_id) / "control.json"
        before = json.loads(control.read_text())
        if lost:
            control.unlink()
    with serving(tmp_path) as second:
        after = json.loads(control.read_text())
        assert second.push(job_id, run_records(2))["acknowledged"] == 5
    assert after["url"].startswith(second.url)
    assert before["url"].startswith(first.url)
    assert (after["token"] == before["token"]) is not lost
