"""Text over a Ray cluster of this machine, which the program starts and ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def prepare(job: Path, home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workers.corpus", str(job), "--home", str(home), "--json", *options]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)


def content(folder: Path) -> dict[Path, bytes]:
    """Every file of a folder, also of those within it."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for number in range(3):
        (tmp_path / "text" / f"{number}.txt").write_text(
            f"Tea is hot. Milk is cold {number} times.\n\nRain falls.\n" * 9
        )
    phase = {"seq_len": 16, "global_batch_size": 8, "micro_batch_size": 4, "steps": 1, "lr": 0.01}
    data = {"corpus": ["text"], "vocab": 90, "deduplicate": True}
    (tmp_path / "job.yaml").write_text(json.dumps({"name": "small", "data": data, "phases": [phase]}))
    return tmp_path / "job.yaml"


def test_text_is_prepared_over_a_cluster_to_the_same_bytes_as_in_this_process(job: Path, tmp_path: Path) -> None:
    over_a_cluster, here = prepare(job, tmp_path / "1", "--ray", "local"), prepare(job, tmp_path / "2")
    assert (over_a_cluster.returncode, here.returncode) == (0, 0), over_a_cluster.stderr
    first, second = (Path(json.loads(done.stdout)["folder"]) for done in (over_a_cluster, here))
    assert first.name == second.name
    assert content(first) == content(second)


def test_a_cluster_that_is_not_there_is_told(job: Path, tmp_path: Path) -> None:
    done = prepare(job, tmp_path / "1", "--ray", "nonsense")
    assert done.returncode == 2
    assert "--ray nonsense: no Ray cluster answers (" in done.stderr
