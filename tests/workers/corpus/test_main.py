"""`python -m workers.corpus`, in processes of its own."""

import fcntl
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.workers.corpus.hub import Hub
from workers.contract.manifests import identity

TEXT = "Tea is hot. Milk is cold.\nBread is brown.\n\nRain falls. Snow falls. Night falls.\n"
Prepare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text(TEXT)
    (tmp_path / "text" / "notes.md").touch()
    return write_job(tmp_path)


def write_job(folder: Path, **data: Any) -> Path:
    phase = {"seq_len": 16, "global_batch_size": 8, "micro_batch_size": 4, "steps": 1, "lr": 0.01}
    document = {"name": "small", "data": {"corpus": ["text"], "vocab": 60} | data, "phases": [phase]}
    (folder / "job.yaml").write_text(json.dumps(document))
    return folder / "job.yaml"


def command(job: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "workers.corpus", str(job), "--home", str(job.parent / "home"), *options]


def prepare(job: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(job, *options), capture_output=True, text=True, check=False, timeout=100)


def test_what_was_prepared_is_summed_up_and_what_was_left_out_is_named(job: Path) -> None:
    done = prepare(write_job(job.parent, validation=["builtin:austen-valid"]))
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, "learning the vocabulary")
    left_out, text, validation, vocabulary, folder = done.stdout.splitlines()
    assert re.fullmatch(r"left out +.*/text/notes\.md \(not \.txt, .*\)", left_out)
    assert re.fullmatch(r"text +1 file, 2 documents, 6 sentences, 43 tokens", text)
    assert re.fullmatch(r"validation +[\d,]+ documents, [\d,]+ sentences, [\d,]+ tokens", validation)
    assert re.fullmatch(r"vocabulary +\d\d tokens, lower case; 0\.00% \[UNK\]", vocabulary)
    assert Path(folder.split()[1]).parent == job.parent / "home" / "data"


def test_the_result_is_verified_and_told_as_json(job: Path) -> None:
    answers = [json.loads(prepare(job, "--json", "--verify", "--processes", "2").stdout) for _ in range(2)]
    for answer in answers:
        assert answer["identity"] == identity(Path(answer["folder"]))
        assert (answer["verified"], answer["manifest"]["sentences"]) == (True, 6)
    assert answers[0]["folder"] == answers[1]["folder"]
    assert (Path(answers[0]["folder"]) / "rows-16-3" / "index.json").exists()


def test_a_shard_that_went_bad_is_named_where_all_is_verified(job: Path) -> None:
    (job.parent / "text" / "a.txt").write_text(TEXT * 300)
    folder = Path(json.loads(prepare(job, "--json").stdout)["folder"])
    shard = folder / "tokens-00000.u16"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    done = prepare(job, "--verify")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{shard}: not the bytes that were written; delete {folder}" in done.stderr


def test_an_index_of_rows_that_went_bad_is_named_where_all_is_verified(job: Path) -> None:
    rows = Path(json.loads(prepare(job, "--json", "--verify").stdout)["folder"]) / "rows-16-3" / "rows.i64"
    content = bytearray(rows.read_bytes())
    content[8] ^= 1
    rows.write_bytes(content)
    done = prepare(job, "--verify")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{rows}: not the bytes that were written; delete {rows.parent}" in done.stderr


def test_bad_bytes_are_refused_with_file_and_byte_unless_they_may_be_replaced(job: Path) -> None:
    (job.parent / "text" / "b.txt").write_bytes(b"The caf\xe9 is shut.\n")
    done = prepare(job)
    assert (done.returncode, done.stdout) == (2, "")
    assert "b.txt: byte 7 is not UTF-8" in done.stderr
    assert prepare(write_job(job.parent, encoding_errors="replace")).returncode == 0


def test_an_interrupted_preparation_says_how_to_go_on(job: Path) -> None:
    folder = Path(json.loads(prepare(job, "--json").stdout)["folder"])
    (folder / "manifest.json").unlink()
    with folder.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so that the program waits until it is interrupted
        with subprocess.Popen(command(job), stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "waiting for another process that prepares this text\n"
            process.send_signal(signal.SIGINT)
            assert process.stderr.read() == "interrupted; the same command goes on from here\n"
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--processes", "0"], "'0' is not a number of processes; give 1 or more"),
        (["--processes", "2", "--ray", "auto"], "not allowed with argument"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(job: Path, options: list[str], says: str) -> None:
    done = prepare(job, *options)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_job_file_that_is_wrong_is_refused_by_field(job: Path) -> None:
    done = prepare(write_job(job.parent, encoding_errors="ignore"))
    assert done.returncode == 2
    assert "data.encoding_errors = 'ignore'" in done.stderr


def test_the_home_is_that_of_the_environment_unless_one_is_named(job: Path) -> None:
    environment = os.environ | {"BIGBATCH_HOME": str(job.parent / "named")}
    arguments = [sys.executable, "-m", "workers.corpus", str(job), "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=100, env=environment)
    assert Path(json.loads(done.stdout)["folder"]).parent == job.parent / "named" / "data"


def test_a_data_set_of_a_hub_is_prepared_like_its_files_here_and_read_again_only_where_it_changed(job: Path) -> None:
    texts = job.parent / "texts"
    (texts / "data").mkdir(parents=True)
    (texts / "README.md").touch()
    (texts / "data" / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "Tea is hot. Milk is cold."}\n' * 9))
    parquet.write_table(pa.table({"text": ["Rain falls.", None, "Snow falls. It is cold."]}), texts / "b.parquet")
    (texts / "c.txt").write_text(TEXT)
    here = json.loads(prepare(write_job(job.parent, corpus=[str(texts)]), "--json").stdout)
    with Hub(texts) as hub:
        command = [sys.executable, "-m", "workers.corpus", str(job), "--home", str(job.parent / "other"), "--json"]
        environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(job.parent / "cache")}

        def from_the_hub() -> dict[str, Any]:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, env=environment)
            told: dict[str, Any] = json.loads(done.stdout)
            return told

        write_job(job.parent, corpus=["hf://datasets/somebody/texts"])
        first = from_the_hub()
        assert first["identity"] == here["identity"]
        assert first["left_out"][0].startswith("hf://datasets/somebody/texts/README.md (not ")
        assert set(hub.read) == {"data/a.jsonl.gz", "b.parquet", "c.txt"}
        hub.read.clear()
        assert (from_the_hub()["identity"], hub.read) == (first["identity"], [])
        (texts / "c.txt").write_text(TEXT.replace("Tea", "Ice"))
        assert from_the_hub()["identity"] != first["identity"]
