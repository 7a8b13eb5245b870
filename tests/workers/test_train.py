import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.workers.small_job import PHASE, document


def train(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"BIGBATCH_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "workers.train", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_file_is_trained_reported_and_not_trained_twice(text: Path, tmp_path: Path) -> None:
    file, run = tmp_path / "job.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(document(Path(os.path.relpath(text, tmp_path)))))
    done = train(str(file), "--run", str(run), "--json", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
    assert kinds.count("step") == 6
    assert kinds[-1] == "status"
    again = train(str(file), "--run", str(run), home=tmp_path)
    assert again.returncode == 0
    steps = [line for line in (run / "events.jsonl").read_text().splitlines() if '"kind":"step"' in line]
    assert len(steps) == 6


def test_bad_input_ends_with_2_and_names_field_and_remedy_and_leaves_no_run_folder(tmp_path: Path) -> None:
    file, run = tmp_path / "job.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(document(tmp_path / "nowhere.txt")))
    done = train(str(file), "--run", str(run), home=tmp_path)
    assert done.returncode == 2
    assert "data.corpus[0]" in done.stderr
    assert "Remedy" in done.stderr
    assert not run.exists()


def test_a_run_folder_of_another_specification_is_refused(text: Path, tmp_path: Path) -> None:
    file, run = tmp_path / "job.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(document(text)))
    run.mkdir()
    (run / "spec.yaml").write_text("name: another\n")
    done = train(str(file), "--run", str(run), home=tmp_path)
    assert done.returncode == 2
    assert "another specification" in done.stderr


def test_a_run_that_fails_says_so_in_its_records(text: Path, tmp_path: Path) -> None:
    file, run = tmp_path / "job.yaml", tmp_path / "run"
    hopeless = PHASE | {"lr": 1e38, "steps": 60, "warmup": 0.0}
    file.write_text(yaml.safe_dump(document(text, phases=[hopeless])))
    done = train(str(file), "--run", str(run), home=tmp_path)
    assert done.returncode == 1
    assert "lower phases[0].lr" in done.stderr
    last = json.loads((run / "events.jsonl").read_text().splitlines()[-1])
    assert last["status"] == "FAILED"


def test_a_run_folder_that_cannot_be_made_is_a_problem(text: Path, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document(text)))
    done = train(str(file), "--run", str(file), home=tmp_path)
    assert (done.returncode, "--run" in done.stderr) == (2, True)
