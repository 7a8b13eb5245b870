"""The path of a run, walked by the programs that users start: train, SIGTERM, resume, evaluate, export, load."""

import json
import math
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.card.place import Place

STEPS = {"cuda": 400, "cpu": 60}
CHECKPOINT_EVERY = {"cuda": 20, "cpu": 5}
MODEL = {"cuda": "bert-small", "cpu": "bert-tiny"}
BATCH = {"cuda": 64, "cpu": 4}
PATIENCE_S = {"cuda": 120.0, "cpu": 600.0}
"""For each station; other work may slow a CPU down."""


class WalkError(RuntimeError):
    """A station of the path was not reached as it should be."""


@dataclass(frozen=True)
class Station:
    """One station of the path."""

    name: str
    seconds: float
    seen: str


def walk(place: Place) -> list[Station]:
    """Walk the path.

    Raises:
        WalkError: says at which station it ended, and where the output of the program is.
    """
    run, log = place.folder / "walk", place.folder / "walk.log"
    job = place.folder / "walk.json"
    job.write_text(json.dumps(_job(place.device)))
    stations = list[Station]()

    def reach(name: str, go: Callable[[], str]) -> None:
        begin = time.monotonic()
        try:
            seen = go()
        except WalkError as error:
            raise WalkError(f"{name}: {error}; what the programs printed is in {log}:\n{_end(log)}") from None
        stations.append(Station(name, time.monotonic() - begin, seen))

    reach("train until SIGTERM", lambda: _interrupted(place, job, run, log))
    reach("resume", lambda: _resumed(place, job, run, log))
    reach("evaluate", lambda: _evaluated(run, place.device))
    reach("export and load", lambda: _loaded(place, run / "export", log))
    return stations


def _job(device: str) -> dict[str, Any]:
    return {
        "name": "walk",
        "model": {"preset": MODEL[device], "max_positions": 64},
        "data": {"corpus": ["builtin:austen"], "validation": ["builtin:austen-valid"], "vocab": 1024},
        "phases": [
            {
                "seq_len": 64,
                "global_batch_size": BATCH[device],
                "micro_batch_size": BATCH[device] // 2,
                "steps": STEPS[device],
                "lr": 5e-3,
            }
        ],
        "parallel": {"workers": 1, "gpus_per_worker": int(device == "cuda")},
        "evaluation": {"every_steps": STEPS[device], "sequences": 64},
        "checkpoint": {"every_steps": CHECKPOINT_EVERY[device]},
    }


def _interrupted(place: Place, job: Path, run: Path, log: Path) -> str:
    """Train until a checkpoint has been reported, and have the program end by SIGTERM."""
    process = place.start("workers.train", str(job), "--run", str(run), log=log)
    try:
        _wait_for_checkpoint(run, process, PATIENCE_S[place.device])
        process.send_signal(signal.SIGTERM)
        code = _code(process, place.device)
    finally:
        process.kill()
    _check(code == 128 + signal.SIGTERM, f"after SIGTERM the exit code was {code}, not {128 + signal.SIGTERM}")
    done, saved = _steps(run)[-1], _records(run, "checkpoint")[-1]["step"]
    _check(saved == done, f"the last checkpoint is of step {saved}, though step {done} was taken")
    return f"checkpoint of step {saved}, exit code {code}"


def _resumed(place: Place, job: Path, run: Path, log: Path) -> str:
    done = _steps(run)[-1]
    process = place.start("workers.train", str(job), "--run", str(run), log=log)
    try:
        code = _code(process, place.device)
    finally:
        process.kill()
    _check(code == 0, f"the exit code was {code}")
    wanted = STEPS[place.device]
    _check(_steps(run) == list(range(1, wanted + 1)), f"the steps reported are not 1 to {wanted}, each once")
    losses = [step["mlm_loss"] for step in _records(run, "step")]
    _check(losses[-1] < losses[0], f"the MLM loss went from {losses[0]:.3f} to {losses[-1]:.3f}")
    return f"steps {done + 1} to {wanted}, MLM loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last"


def _evaluated(run: Path, device: str) -> str:
    judged = _records(run, "evaluation")
    _check([each["step"] for each in judged] == [STEPS[device]], "there is not one evaluation, after the last step")
    loss = judged[0]["mlm_loss"]
    _check(loss is not None and math.isfinite(loss), f"the held-out loss is {loss}")
    return f"held-out MLM loss {loss:.3f} over {judged[0]['rows']} rows"


def _loaded(place: Place, export: Path, log: Path) -> str:
    _check(export.is_dir(), f"there is no {export}")
    answer = place.folder / "loaded.txt"
    code = _code(place.start("benchmarks.card.loaded", str(export), place.device, str(answer), log=log), place.device)
    _check(code == 0, f"transformers did not load it, exit code {code}")
    return answer.read_text().strip()


def _records(run: Path, kind: str) -> list[dict[str, Any]]:
    """Return the whole records of one kind; none where there is no journal yet."""
    journal = run / "events.jsonl"
    lines = journal.read_text().splitlines(keepends=True) if journal.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in records if record["kind"] == kind]


def _steps(run: Path) -> list[int]:
    return [record["step"] for record in _records(run, "step")]


def _code(process: "subprocess.Popen[bytes]", device: str) -> int:
    try:
        return process.wait(PATIENCE_S[device])
    except subprocess.TimeoutExpired:
        process.kill()
        raise WalkError(f"it did not end within {PATIENCE_S[device]:g} s") from None


def _wait_for_checkpoint(run: Path, process: "subprocess.Popen[bytes]", patience_s: float) -> None:
    """Return when the first checkpoint has been reported, or the program has ended."""
    deadline = time.monotonic() + patience_s
    while not _records(run, "checkpoint") and process.poll() is None:
        _check(time.monotonic() < deadline, f"there was no checkpoint within {patience_s:g} s")
        time.sleep(0.02)


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise WalkError(problem)


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""
