import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.multiprocessing.spawn import start_processes
from torch.optim import SGD

from benchmarks import optimizer
from benchmarks.contenders import BASELINE, CONTENDERS, OURS, Contender
from benchmarks.optimizer import choose, main

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "optimizer.py"


def test_ours_and_the_baseline_are_measured_on_one_rank_and_on_two(tmp_path: Path) -> None:
    options = ("--model", "bert-tiny", "--only", "bigbatch Lamb", "--ranks", "1", "2", "--turns", "1")
    command = [sys.executable, "-W", "error", str(PROGRAM), *options, "--json", "run.json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # By its path, from a folder that is not the project's.
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "run.json").read_text())["results"]
    assert {(row["ranks"], row["name"]) for row in rows} == {
        *((ranks, name) for ranks in (1, 2) for name in ("torch AdamW fused", "bigbatch Lamb"))
    }
    # Two float32 moments, and a float32 step for each of 46 tensors.
    assert {row["state_bytes"] for row in rows} == {(8 * 4_433_468 + 4 * 46) / 4_433_468}
    assert {row["over_half"] is None for row in rows if row["ranks"] == 1} == {True}
    assert all(row["over_half"] > 0 for row in rows if row["ranks"] == 2)
    on_two = {row["name"]: row["collectives"] for row in rows if row["ranks"] == 2}
    assert on_two == {"torch AdamW fused": 0, "bigbatch Lamb": 2}
    assert done.stdout.count("### bert-tiny, ") == 2


def test_who_raises_on_shards_is_measured_on_one_rank_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONTENDERS, "theirs", Contender(SGD, refusal="it raises"))
    asked = argparse.Namespace(model=["bert-tiny"], threads=[1], ranks=[1, 2], turns=1, device="cpu", only=["theirs"])
    _, names, left_out = choose(asked)
    assert names == [BASELINE, "theirs"]
    assert left_out[0] == "theirs is not measured on several ranks: it raises"
    asked.ranks = [1]
    assert choose(asked)[2] == []


def test_a_rank_that_is_killed_costs_its_own_row_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(_: object, name: str) -> None:
        start_processes(die, (name,), 1, start_method="spawn")  # type: ignore[no-untyped-call]

    monkeypatch.setattr(optimizer, "measure_sharded", kill)
    main(["--model", "bert-tiny", "--ranks", "2", "--only", OURS, "--json"])
    output, errors = capsys.readouterr()
    left_out = json.loads(output)["left_out"]
    assert [reason.split(":")[0] for reason in left_out] == [
        f"{name} is not measured with bert-tiny on 2 ranks" for name in (BASELINE, OURS)
    ]
    assert all("terminated with signal SIGKILL, as where memory runs out" in reason for reason in left_out)
    assert all(reason in errors for reason in left_out)


def die(_rank: int, _name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--json", "nowhere/run.json"), "--json nowhere/run.json: there is no folder nowhere; make it first"),
        (("--device", "cuda", "--ranks", "2"), "--device cuda"),
        (("--turns", "0"), "argument --turns: '0' is no number of them; give 1 or more"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert problem in capsys.readouterr().err
