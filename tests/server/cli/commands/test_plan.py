"""`bigbatch plan`: what it reads, what it prints, and how it ends."""

import json
from pathlib import Path

import pytest
import typer

from server.cli.commands.plan import read_bytes
from tests.server.cli.command import run_bigbatch
from tests.workers.planning.test_rate import begun, run_of, step

DEMO = Path(__file__).parents[4] / "configs/demo.yaml"


@pytest.mark.parametrize(
    ("text", "size"), [("80GB", 80 * 10**9), ("24 GiB", 24 * 2**30), ("1.5TB", 15 * 10**11), ("512MiB", 2**29)]
)
def test_a_size_has_a_number_and_a_unit(text: str, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("text", ["80", "GB", "80 gigs", "-1GB", ""])
def test_what_is_no_size_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"is not a size.*80GB"):
        read_bytes(text)


def test_the_demos_plan_says_what_it_takes(tmp_path: Path) -> None:
    result = run_bigbatch("plan", DEMO, "--tokens-per-s", "20000", "--memory", "8GB", "--home", tmp_path)
    assert result.exit_code == 0, result.output
    assert "demo: 1,503,746 parameters, 8,192 entries in the vocabulary; 2 workers" in result.stdout
    assert "It fits" in result.stdout
    assert "The batches divide over 1, 2, 4 workers; the job allows 2." in result.stdout
    row = next(line.split() for line in result.stdout.splitlines() if line.startswith("0 "))
    assert row == ["0", "64", "128", "32", "2", "200", "1,638,400", "-", "0.02"]


def test_what_does_not_fit_ends_with_1_and_says_what_would(tmp_path: Path) -> None:
    result = run_bigbatch("plan", DEMO, "--memory", "60MB", "--home", tmp_path)
    assert result.exit_code == 1
    assert "It does not fit" in result.stdout
    assert "--set phases[0].micro_batch_size=" in result.stdout
    assert run_bigbatch("plan", DEMO, "--memory", "60MB", "--json", "--home", tmp_path).exit_code == 1


def test_nothing_would_make_a_model_fit_that_is_larger_than_the_device(tmp_path: Path) -> None:
    result = run_bigbatch("plan", DEMO, "--memory", "1MB", "--home", tmp_path)
    assert "No setting would make it fit" in result.stdout


def test_json_has_every_figure(tmp_path: Path) -> None:
    result = run_bigbatch("plan", DEMO, "--workers", "2", "--json", "--home", tmp_path)
    plan = json.loads(result.stdout)
    assert (plan["name"], plan["workers"], plan["parameters"], plan["fits"]) == ("demo", 2, 1_503_746, None)
    assert {each["collective"] for each in plan["phases"][0]["exchanges"]} >= {"all-gather", "all-reduce"}


def test_a_run_gives_the_rate(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [begun(1), *([step(128.0)] * 3)])
    phase = '[{"seq_len": 16, "global_batch_size": 32, "steps": 900, "lr": 1.0e-3}]'
    home, changes = ("--home", tmp_path), ("--set", f"phases={phase}", "--set", "parallel.workers=1")
    result = run_bigbatch("plan", DEMO, *changes, "--like", run, "--json", *home)
    assert json.loads(result.stdout)["hours"] == pytest.approx(1)
    both = run_bigbatch("plan", DEMO, "--like", run, "--tokens-per-s", "1", *home)
    assert both.exit_code == 2
    assert "gives the rate already" in both.output


def test_a_number_of_workers_over_which_the_batches_do_not_divide_is_refused(tmp_path: Path) -> None:
    result = run_bigbatch("plan", DEMO, "--workers", "3", "--home", tmp_path)
    assert result.exit_code == 2
    assert "this job cannot run on 3 workers" in result.output
