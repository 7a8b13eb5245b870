"""The preparation of a job's text as a program of its own; tests/system covers it on a cluster."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.contract.run.folder import RunFolder
from workers.corpus.prepare import prepare
from workers.corpus.rows.index import Layout


def start(folder: RunFolder, data: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "workers.prepare", str(folder.path), "--data", str(data)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=200)
    return process.returncode, said


@pytest.fixture
def folder(text: Path, tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.put_spec(parse_spec(document(text)))
    return folder


def records(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.journal.read_text().splitlines()]


def test_text_and_rows_are_prepared_as_the_workers_would_and_the_journal_says_how_far_it_has_come(
    folder: RunFolder, tmp_path: Path
) -> None:
    assert ended(start(folder, tmp_path / "data")) == (0, "")
    spec, opened = folder.spec(), list[str]()
    corpus = prepare(spec.data, tmp_path / "data", lambda what, _: opened.append(what))
    assert opened == [], "it is there"
    assert (corpus / Layout(32, next_sentence=True, packing=False).folder).is_dir()
    assert [record["text"] for record in records(folder)][:2] == ["text: learning the vocabulary", "text: tokenizing"]
    assert all(0 <= record["done"] <= 1 for record in records(folder))
    assert folder.manifest().attempt == 0, "it is no attempt"
    journal = folder.open_journal(1)
    journal.close()
    assert journal.last_seq == len(records(folder))


def test_a_text_that_cannot_be_used_is_refused_with_what_where_and_the_remedy(tmp_path: Path) -> None:
    folder, bad = RunFolder(tmp_path / "run"), tmp_path / "bad.txt"
    bad.write_bytes(b"Tea is hot.\n\xff\xfe\n")
    for corpus, words in ((bad, "encoding_errors"), (tmp_path / "absent.txt", "no such file on this machine")):
        folder.put_spec(parse_spec(document(corpus)))
        code, said = ended(start(folder, tmp_path / "data"))
        told = records(folder)[-1]
        assert (code, told["status"], told["attempt"]) == (1, "FAILED", 0)
        assert str(corpus) in told["error"]
        assert words in told["error"]
        assert told["error"] in said


def test_of_two_preparations_of_one_job_the_second_waits_for_the_first(folder: RunFolder, tmp_path: Path) -> None:
    lock = os.open(folder.path / "preparation.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    process = start(folder, tmp_path / "data")
    deadline = time.monotonic() + 200
    while not folder.log(0).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    assert not folder.journal.exists()
    os.close(lock)
    assert ended(process) == (0, "")


def test_after_an_attempt_has_begun_a_preparation_writes_nothing(folder: RunFolder, tmp_path: Path) -> None:
    folder.take_over(1)
    code, said = ended(start(folder, tmp_path / "data"))
    folder.lock.release()
    assert code == 1
    assert "attempt 0 is over" in said
    assert folder.journal.read_bytes() == b""
