"""From text to a model that `transformers` loads: prepare, train through a hang, evaluate, branch, export, fill in."""

import io
import json
import signal
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.system.service import Service, expect_every_step_once, records_of
from tests.workers.small_job import document

pytestmark = pytest.mark.timeout(900)  # a standstill is noticed long before

PHASES = [
    {"seq_len": 32, "global_batch_size": 16, "micro_batch_size": 8, "steps": 120, "lr": 1e-2, "warmup": 0.1},
    {"seq_len": 48, "global_batch_size": 8, "micro_batch_size": 4, "steps": 40, "lr": 5e-3, "reset": ["step"]},
]
STEPS = 160

# Isolated (-I) and without site (-S), Python finds what lies in the environment, but not our editable installation.
FILL = """
import importlib.util, json, sys
sys.path.append(sys.argv[1])
assert not any(map(importlib.util.find_spec, ("optim", "workers", "server")))
from transformers import BertForPreTraining, pipeline
loading = BertForPreTraining.from_pretrained(sys.argv[2], output_loading_info=True)[1]
assert not any(loading.values()), loading
print(json.dumps(pipeline("fill-mask", sys.argv[2])("She was a very [MASK] woman.")))
"""


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    shape = {"layers": 2, "hidden": 32, "heads": 2, "intermediate": 64, "max_positions": 48}
    return document(
        Path("builtin:austen"),
        workers=2,
        name="whole-way",
        model=shape,
        data={"corpus": ["builtin:austen"], "vocab": 1000, "validation": ["builtin:austen-valid"]},
        phases=PHASES,
        evaluation={"every_steps": 80, "sequences": 64},
        checkpoint={"every_steps": 40, "keep": 9},
        failures={"hang_timeout_s": 20},
    )


def prepare(service: Service, job: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "server", "data", "prepare", str(job), "--home", str(service.settings.home)]
    return subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def prepared(service: Service, spec: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Text that was prepared in two goes, the first of them interrupted."""
    job = tmp_path_factory.mktemp("job") / "job.yaml"
    job.write_text(yaml.safe_dump(spec))
    with prepare(service, job) as first:
        assert first.stderr is not None
        assert first.stderr.readline() == "learning the vocabulary\n"
        first.send_signal(signal.SIGINT)
        assert first.stderr.read() == "interrupted; the same command goes on from here\n"
    assert first.returncode == 130
    with prepare(service, job) as second:
        answer, said = second.communicate()
    assert second.returncode == 0, said
    found: dict[str, Any] = json.loads(answer)
    return found


@pytest.fixture(scope="module")
def stopped() -> list[psutil.Process]:
    """The workers that were stopped."""
    return []


@pytest.fixture(scope="module")
def trained(
    service: Service, spec: dict[str, Any], prepared: dict[str, Any], stopped: list[psutil.Process]
) -> dict[str, Any]:
    """A job of two phases on two workers, one of which was stopped in the first phase and never told to go on."""
    assert prepared
    job_id = service.submit(spec)
    service.until_step(job_id, 50)
    stopped += service.workers()[:1]
    stopped[0].suspend()
    return service.until_ended(job_id)


@pytest.fixture(scope="module")
def branch(service: Service, trained: dict[str, Any]) -> dict[str, Any]:
    """The same job from step 120 on, at a lower rate."""
    wish = {"from_step": 120, "set": {"phases[1].lr": 1e-3}}
    answer = service.http.post(f"/v1/jobs/{trained['id']}/clone", json=wish)
    assert answer.status_code == 201, answer.text
    return service.until_ended(answer.json()["id"])


def series(service: Service, job_id: str, name: str) -> dict[int, float]:
    query = {"series": name, "buckets": "4096"}
    metrics = service.http.get(f"/v1/jobs/{job_id}/metrics", params=query).raise_for_status().json()
    numbers = zip(metrics["steps"], metrics["series"][name]["last"], strict=True)
    return {step: number for step, number in numbers if number is not None}


def test_an_interrupted_preparation_goes_on_when_it_is_asked_again(prepared: dict[str, Any]) -> None:
    assert prepared["manifest"]["tokens"] > 500_000


def test_a_worker_that_hangs_costs_no_step_of_either_phase_and_does_not_outlive_its_attempt(
    service: Service, trained: dict[str, Any], stopped: list[psutil.Process]
) -> None:
    assert (trained["status"], trained["error"]) == ("SUCCEEDED", None), service.log.read_text()
    assert trained["attempt"] > 1
    assert not any(process.is_running() for process in stopped)
    expect_every_step_once(service, trained["id"], STEPS)
    written = [record.step for record in records_of(service, trained["id"])]
    assert len(written) > STEPS, "the steps behind the checkpoint were computed again"


def test_text_that_was_prepared_beforehand_is_what_the_job_trains_on(
    service: Service, trained: dict[str, Any], prepared: dict[str, Any]
) -> None:
    run = json.loads((service.settings.run_folder(trained["id"]) / "run.json").read_text())
    assert run["identity"] == prepared["identity"]


def test_held_out_text_judges_the_model_at_its_interval_and_at_the_end_of_each_phase(
    service: Service, trained: dict[str, Any]
) -> None:
    losses = series(service, trained["id"], "evaluation_mlm_loss")
    assert list(losses) == [80, 120, 160]
    assert losses[160] < losses[80]


def test_a_branch_goes_on_from_its_step_at_its_own_rate(
    service: Service, trained: dict[str, Any], branch: dict[str, Any]
) -> None:
    assert (branch["status"], branch["error"]) == ("SUCCEEDED", None), service.log.read_text()
    assert (branch["parent"], branch["parent_step"]) == (trained["id"], 120)
    rates, parents = series(service, branch["id"], "lr"), series(service, trained["id"], "lr")
    assert list(rates) == list(range(121, STEPS + 1))
    assert all(rates[step] == pytest.approx(parents[step] / 5) for step in rates)


def test_the_model_fills_in_words_in_a_process_without_our_packages(
    service: Service, trained: dict[str, Any], tmp_path: Path
) -> None:
    archive = service.http.get(f"/v1/jobs/{trained['id']}/export").raise_for_status().content
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(tmp_path, filter="data")
    [model] = tmp_path.iterdir()
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", FILL, sysconfig.get_path("purelib"), str(model)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    guesses = json.loads(done.stdout)
    assert len(guesses) == 5
    assert all(guess["sequence"].startswith("she was a very") for guess in guesses)
