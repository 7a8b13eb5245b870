from pathlib import Path
from typing import Any

import pytest

from tests.workers.small_job import document
from tests.workers.training.running import forget_after, records, train
from workers.contract.records import LogRecord, StepRecord


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def summary(folder: Path) -> list[str]:
    """The lines of the last record but one: the very last is the status."""
    record = records(folder)[-2]
    assert isinstance(record, LogRecord)
    return record.text.splitlines()


def tokens_of(folder: Path, attempts: dict[int, int]) -> int:
    """Count the tokens of the steps, each by the attempt that took it for good."""
    steps = (record for record in records(folder) if isinstance(record, StepRecord))
    return sum(step.tokens or 0 for step in steps if step.attempt == attempts[step.step])


def judged(text: Path) -> dict[str, Any]:
    apart = text.parent / "apart.txt"
    apart.write_text("\n\n".join(f"Number {n} is here. It snowed {n} times." for n in range(9)))
    data = {"corpus": [str(text)], "vocab": 90, "validation": [str(apart)]}
    return document(text, data=data, evaluation={"every_steps": 3}, export={"at_end": False})


def test_a_run_ends_with_its_losses_held_out_figures_tokens_time_and_where_the_model_lies(
    text: Path, home: Path, tmp_path: Path
) -> None:
    train(judged(text), tmp_path, home)
    done, loss, held_out, model = summary(tmp_path)
    tokens = tokens_of(tmp_path, dict.fromkeys(range(1, 7), 1))
    assert done.startswith(f"finished after 6 of 6 steps: {tokens:,} tokens in 0:00:0")
    last = [record for record in records(tmp_path) if isinstance(record, StepRecord)][-1]
    assert loss.startswith(
        f"loss: {last.loss:.3f} nats (MLM {last.mlm_loss:.3f}, NSP {last.nsp_loss:.3f}); guessing by"
    )
    assert held_out.startswith("held-out text: MLM loss ")
    assert "of 32 tokens, after step 6)" in held_out
    assert model == f"model: checkpoint {tmp_path / 'checkpoints' / 'step-00000006-a1'}"


def test_what_earlier_attempts_learned_is_counted_once(text: Path, home: Path, tmp_path: Path) -> None:
    train(judged(text), tmp_path, home)
    forget_after(tmp_path, 4)
    train(judged(text), tmp_path, home, attempt=2)
    tokens = tokens_of(tmp_path, {1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2})
    assert summary(tmp_path)[0].startswith(f"finished after 6 of 6 steps: {tokens:,} tokens in ")


def test_a_finished_run_that_is_started_again_says_what_is_known_of_it(text: Path, home: Path, tmp_path: Path) -> None:
    train(judged(text), tmp_path, home)
    done, _, held_out, model = summary(tmp_path)
    train(judged(text), tmp_path, home, attempt=2)
    assert summary(tmp_path)[0].rpartition(" in ")[0] == done.rpartition(" in ")[0]
    assert summary(tmp_path)[1:] == [held_out, model]


def test_what_an_older_version_did_not_count_is_not_claimed(text: Path, home: Path, tmp_path: Path) -> None:
    train(judged(text), tmp_path, home)
    forget_after(tmp_path, 2)
    manifest = tmp_path / "checkpoints" / "step-00000002-a1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"tokens"', '"unknown"'))
    train(judged(text), tmp_path, home, attempt=2)
    assert summary(tmp_path)[0].endswith(" since step 2")
    tokens = tokens_of(tmp_path, {1: 0, 2: 0} | dict.fromkeys(range(3, 7), 2))
    assert f" {tokens:,} tokens in " in summary(tmp_path)[0]
