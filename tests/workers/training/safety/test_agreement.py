"""Commands are obeyed soon, also where steps are reported many at a time, as on a GPU."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.ranks import run_on_ranks
from tests.workers.small_job import PHASE, document
from tests.workers.training.running import checkpoints, records, train
from workers.contract.push import Command
from workers.contract.records import StepRecord
from workers.training import loop
from workers.training.reporting import telemetry
from workers.training.safety.agreement import Agreement
from workers.training.safety.signals import StopRequest
from workers.training.step import take_step

WISHES = [
    (Command.NONE, Command.NONE),
    (Command.NONE, Command.CHECKPOINT),
    (Command.STOP, Command.PAUSE),
    (Command.MAKE_WAY, Command.PAUSE),
    (Command.NONE, Command.NONE),
]


def exchange() -> list[Command]:
    agreement = Agreement(torch.device("cpu"))
    return [agreement.exchange(wishes[dist.get_rank()]) for wishes in WISHES]


def test_every_rank_hears_the_strongest_wish_of_any_one_call_later() -> None:
    heard = [Command.NONE, Command.NONE, Command.CHECKPOINT, Command.STOP, Command.PAUSE]
    assert run_on_ranks(2, exchange) == [heard, heard]


def test_what_was_forgotten_is_not_heard() -> None:
    assert run_on_ranks(1, forget) == [Command.NONE]


def forget() -> Command:
    agreement = Agreement(torch.device("cpu"))
    agreement.exchange(Command.STOP)
    agreement.forget()
    return agreement.exchange(Command.NONE)


def train_until_told(document: dict[str, Any], folder: Path, home: Path, flush_every: int, told: int) -> str:
    """Train, reporting steps in batches; rank 1 is told to end in the middle of step `told`."""
    stop = StopRequest()

    def take(worker: Any, step: int, *others: Any) -> Any:
        if step == told and dist.get_rank() == 1:
            stop.ask(signal.SIGTERM)
        return take_step(worker, step, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(telemetry._STEPS_PER_FLUSH, "cpu", flush_every)
        patch.setattr(loop, "take_step", take)
        return train(document, folder, home, stop=stop).value


@pytest.mark.parametrize(("flush_every", "told", "last"), [(1, 7, 7), (50, 7, 8), (8, 7, 8), (7, 7, 7)])
def test_a_command_that_arrives_in_a_step_is_obeyed_by_the_end_of_the_next_one(
    flush_every: int, told: int, last: int, text: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.getbasetemp() / "agreement"
    job = document(text, workers=2, phases=[PHASE | {"steps": 10**6}], checkpoint={"every_steps": 10**6})
    assert run_on_ranks(2, train_until_told, job, tmp_path, home, flush_every, told) == ["PAUSED", "PAUSED"]
    taken = [record.step for record in records(tmp_path) if isinstance(record, StepRecord)]
    assert taken == list(range(1, last + 1))
    assert checkpoints(tmp_path) == [f"step-{last:08d}-a1"]
