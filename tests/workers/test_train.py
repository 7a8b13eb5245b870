import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

from tests.workers.small_job import PHASE, document
from workers.contract.documents import parse_spec
from workers.contract.manifests import Parent
from workers.contract.run.folder import RunFolder
from workers.train import main


class Done(NamedTuple):
    """How a training ended."""

    returncode: int
    stdout: str
    stderr: str


Train = Callable[..., Done]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Train:
    """Train in this process, as `python -m workers.train` does in its own."""
    monkeypatch.setenv("BIGBATCH_HOME", str(tmp_path))

    def run(*arguments: str) -> Done:
        return Done(main(arguments), *capfd.readouterr())

    return run


def start(program: Sequence[str], *arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"BIGBATCH_HOME": str(home), "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, "-m", *program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)


def test_a_file_is_trained_reported_and_not_trained_twice(train: Train, text: Path, tmp_path: Path) -> None:
    file, run = tmp_path / "job.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(document(Path(os.path.relpath(text, tmp_path)))))
    done = train(str(file), "--run", str(run), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
    assert kinds.count("step") == 6
    assert kinds[-1] == "status"
    again = train(str(file), "--run", str(run))
    assert again.returncode == 0
    steps = [line for line in (run / "events.jsonl").read_text().splitlines() if '"kind":"step"' in line]
    assert len(steps) == 6


def test_held_out_figures_are_told_as_they_come_and_summed_up_at_the_end(
    train: Train, text: Path, tmp_path: Path
) -> None:
    (tmp_path / "apart.txt").write_text("It snows. It rains.\n\nThe dog sleeps. The cat waits.")
    data = {"corpus": [str(text)], "vocab": 90, "validation": ["./apart.txt"]}
    file, run = write_job(tmp_path, text, data=data, evaluation={"every_steps": 3}), tmp_path / "run"
    done = train(file, "--run", str(run))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    told = [line for line in lines if line.startswith("held-out text: MLM loss ")]
    assert [line.rpartition(" ")[2] for line in told] == ["3)", "6)", "6)"]  # the last one is in the summary
    (first,) = [number for number, line in enumerate(lines) if line.startswith("finished after 6 of 6 steps: ")]
    assert lines[first + 1].startswith("loss: ")
    assert lines[first + 2] == told[-1] == told[-2]
    assert lines[first + 3] == f"model: {run / 'export'}"


def test_a_branch_of_a_run_folder_is_trained_with_what_the_command_line_sets(
    train: Train, text: Path, tmp_path: Path
) -> None:
    assert train(write_job(tmp_path, text), "--run", str(tmp_path / "first")).returncode == 0
    file = write_job(tmp_path, text, start_from={"run": "./first", "step": 4})
    done = train(file, "--run", str(tmp_path / "second"), "--set", "phases[0].lr=1e-3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "second" / "events.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == [5, 6]
    assert f"a branch: goes on from step 4 of {tmp_path / 'first'}" in done.stdout
    folder = RunFolder(tmp_path / "second")
    assert folder.spec().phases[0].lr == 1e-3
    assert folder.manifest().parent == Parent(run=str(tmp_path / "first"), step=4)
    gone = train(file, "--run", str(tmp_path / "third"), "--set", "start_from.step=5")
    assert gone.returncode == 2
    assert "start_from.step = 5" in gone.stderr
    assert "Remedy: name a step that it has: 2, 4, 6." in gone.stderr


def test_the_text_is_summed_up_and_its_surprises_are_told_before_the_first_step(
    train: Train, text: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    file = write_job(tmp_path, text, data={"corpus": [str(text)], "vocab": 5000})
    done = train(file, "--run", str(run))
    assert (done.returncode, done.stderr) == (0, "")
    *stages, summary, warning = done.stdout.splitlines()[:5]
    assert stages[:2] == ["text: learning the vocabulary", "text: tokenizing"]
    assert summary.startswith("text: 1 file, ")
    assert "% padding" in summary
    assert re.match(r"warning: The vocabulary has [\d,]+ tokens, 5,000 were asked for: ", warning)
    kinds = [json.loads(line)["kind"] for line in (run / "events.jsonl").read_text().splitlines()]
    assert kinds[:5] == ["log", "log", "log", "log", "alert"]
    assert kinds.index("step") > 4


def test_bad_input_ends_with_2_and_names_field_and_remedy_and_leaves_no_run_folder(
    train: Train, tmp_path: Path
) -> None:
    file, run = tmp_path / "job.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(document(tmp_path / "nowhere.txt")))
    done = train(str(file), "--run", str(run))
    assert done.returncode == 2
    assert "data.corpus[0]" in done.stderr
    assert "Remedy" in done.stderr
    assert not run.exists()


def write_job(folder: Path, text: Path, **changes: Any) -> str:
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(document(text, **changes)))
    return str(file)


def statuses(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "status"]


def test_a_run_folder_of_another_specification_is_refused(train: Train, text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "spec.yaml").write_text("name: another\n")
    done = train(write_job(tmp_path, text), "--run", str(run))
    assert done.returncode == 2
    assert "another specification" in done.stderr


def test_the_run_folder_of_a_server_is_gone_on_with_under_the_next_number(
    train: Train, text: Path, tmp_path: Path
) -> None:
    spec = parse_spec(document(text))
    folder = RunFolder(tmp_path / "run")
    folder.store.put("spec.yaml", json.dumps(spec.model_dump(mode="json"), indent=2).encode())  # as older servers did
    folder.take_over(1)
    folder.lock.release()
    done = train(write_job(tmp_path, text), "--run", str(folder.path))
    assert (done.returncode, done.stderr) == (0, "")
    assert [(record["status"], record["attempt"]) for record in statuses(folder.path)] == [
        ("RUNNING", 2),
        ("SUCCEEDED", 2),
    ]
    assert folder.manifest().attempt == 2


def test_a_run_that_goes_on_may_have_other_labels_and_more_phases_and_says_what_changed(
    train: Train, text: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(write_job(tmp_path, text), "--run", str(run))
    file = write_job(tmp_path, text, labels={"team": "nlp"}, phases=[PHASE, PHASE | {"steps": 2}])
    done = train(file, "--run", str(run))
    assert (done.returncode, done.stderr) == (0, "")
    assert "labels.team: None → 'nlp'" in done.stdout
    steps = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines() if '"kind":"step"' in line]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6, 7, 8]
    refused = train(write_job(tmp_path, text, seed=5), "--run", str(run))
    assert (refused.returncode, "seed = 5: was 0 in this run" in refused.stderr) == (2, True)


def test_a_run_that_goes_on_with_other_text_is_refused(train: Train, text: Path, tmp_path: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy.txt"
    copy.write_bytes(text.read_bytes())
    file = write_job(tmp_path, copy)
    assert train(file, "--run", str(run)).returncode == 0
    identity = RunFolder(run).manifest().identity
    copy.write_bytes(text.read_bytes() + b"\nOne more sentence. And another one.\n")
    done = train(file, "--run", str(run))
    assert done.returncode == 2
    assert "not the text, vocabulary and settings that this run was begun on" in done.stderr
    assert identity is not None
    assert identity[:16] in done.stderr
    assert statuses(run)[-1]["status"] == "FAILED"


def test_two_processes_on_one_run_folder_are_refused_by_name(train: Train, text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = RunFolder(run)
    attempt = folder.begin()
    done = train(write_job(tmp_path, text), "--run", str(run))
    assert done.returncode == 2
    assert f"is in use by attempt {attempt} (process {os.getpid()} on" in done.stderr
    folder.lock.release()


def test_an_attempt_says_what_it_ran_on(train: Train, text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(write_job(tmp_path, text), "--run", str(run))
    running = statuses(run)[0]
    assert running["versions"]["torch"] == torch.__version__
    assert {"bigbatch", "python"} <= running["versions"].keys()
    assert running["hosts"] == [socket.gethostname()]
    assert list(running["devices"].values()) == [1]


def test_a_terminal_that_is_not_utf_8_is_no_reason_to_fail(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Prüfung"
    folder.mkdir()
    job = write_job(folder, text)
    done = start(["workers.train"], job, "--run", str(folder / "run"), home=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"Pr\xfcfung" in done.stdout
    assert "(MLM " in done.stdout


def test_a_run_that_fails_says_so_in_its_records(train: Train, text: Path, tmp_path: Path) -> None:
    file, run = tmp_path / "job.yaml", tmp_path / "run"
    hopeless = PHASE | {"lr": 1e38, "steps": 60, "warmup": 0.0}
    file.write_text(yaml.safe_dump(document(text, phases=[hopeless])))
    done = train(str(file), "--run", str(run))
    assert done.returncode == 1
    assert "lower phases[0].lr" in done.stderr
    last = json.loads((run / "events.jsonl").read_text().splitlines()[-1])
    assert last["status"] == "FAILED"


def test_a_run_folder_that_cannot_be_made_is_a_problem(train: Train, text: Path, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document(text)))
    done = train(str(file), "--run", str(file))
    assert (done.returncode, "--run" in done.stderr) == (2, True)
