"""The memory of a step beside torch's own tracker of memory, in eager float32 and bf16 on one rank."""

from datetime import timedelta
from typing import Any, NamedTuple

import pytest
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore

from benchmarks.steps import first_phase_step, make_worker
from optim.sharding import local_part
from tests.ranks import run_on_ranks
from tests.workers.planning.planned import make_spec
from workers.contract.spec.job import JobSpec
from workers.planning.attempt import Attempt
from workers.planning.memory import fullest, moments_bytes

MODEL = {"layers": 2, "hidden": 96, "heads": 3, "intermediate": 240, "max_positions": 64, "dropout": 0.0}
TOLERANCE = 0.1


class Case(NamedTuple):
    """A job whose memory is measured."""

    stage: int
    micro_batches: int
    vocab_size: int = 3000
    rows: int = 6
    seq_len: int = 48
    model: dict[str, Any] = MODEL
    compute: str = "fp32"
    checkpointing: bool = False

    def spec(self, workers: int) -> JobSpec:
        batch = self.micro_batches * self.rows * workers
        phase: dict[str, Any] = {"seq_len": self.seq_len, "global_batch_size": batch, "micro_batch_size": self.rows}
        phase |= {"steps": 3, "lr": 1e-3}
        changes: dict[str, Any] = {"precision": {"compute": self.compute}}
        changes["execution"] = {"activation_checkpointing": self.checkpointing}
        return make_spec(workers, self.stage, model=self.model, phases=[phase], **changes)


class Tracker(MemTracker):  # type: ignore[no-untyped-call]  # torch's own is untyped
    """A tracker of a step with several forward passes, of which torch's own refuses the second."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model

    def _pre_fw_hook(self, module: nn.Module, inputs: Any) -> None:
        if module is self._model:
            self.reset_mod_stats()
        super()._pre_fw_hook(module, inputs)


class Measured(NamedTuple):
    fullest: int
    moments: int


def measure(cases: list[Case], workers: int) -> list[Measured]:
    """Return the bytes that each case holds at the fullest moment of its second step, and those of its moments."""
    if workers > 1:  # the others are not there: collectives return at once
        dist.destroy_process_group()
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=workers)
    found = []
    for case in cases:
        worker = make_worker(case.spec(workers), case.vocab_size)
        step = first_phase_step(worker, case.vocab_size)
        step()
        tracker = Tracker(worker.model)
        tracker.track_external(worker.model, worker.optimizer)
        with tracker:
            step()
        (peak,) = tracker.get_tracker_snapshot("peak").values()
        state = [value for state in worker.optimizer.state.values() for value in state.values()]
        found.append(
            Measured(peak["Total"], sum(local_part(each).nbytes for each in state if isinstance(each, Tensor)))
        )
    return found


FEW_TOKENS: dict[str, Any] = {"vocab_size": 9000, "rows": 2, "seq_len": 16}
DEEP: dict[str, Any] = {"vocab_size": 200, "seq_len": 64, "model": MODEL | {"layers": 6}}
SHARDED = [
    Case(1, 3),
    Case(2, 3),
    Case(3, 1),
    Case(2, 1, **FEW_TOKENS),
    Case(2, 3, **DEEP, checkpointing=True),
    Case(3, 1, **DEEP, checkpointing=True),
    Case(1, 3, compute="bf16"),
    Case(2, 1, **FEW_TOKENS, compute="bf16"),
    Case(3, 1, **DEEP, compute="bf16"),
    Case(3, 1, **DEEP, compute="bf16", checkpointing=True),
]
DROPOUT: dict[str, Any] = {"vocab_size": 200, "seq_len": 64, "model": MODEL | {"dropout": 0.1}}
ALONE = [
    Case(1, 1),
    Case(0, 3, vocab_size=200, seq_len=64),
    Case(0, 1, **FEW_TOKENS),
    Case(0, 1, **DROPOUT),
    Case(0, 1, model=MODEL | {"dropout": 0.1, "attention_dropout": 0.0}),
    Case(0, 3, **DEEP, checkpointing=True),
    Case(0, 1, **DROPOUT, checkpointing=True),
    Case(1, 1, compute="bf16"),
    Case(1, 1, compute="bf16", checkpointing=True),
    Case(0, 3, **DEEP, compute="bf16"),
    Case(0, 1, **DROPOUT, compute="bf16"),
    Case(0, 1, **DROPOUT, compute="bf16", checkpointing=True),
    Case(0, 1, **FEW_TOKENS, compute="bf16"),
]


def differences(cases: list[Case], workers: int) -> dict[str, float]:
    """Return by which part the memory that is planned for each case is not what rank 0 held."""
    (measured,) = run_on_ranks(1, measure, cases, workers, timeout=timedelta(minutes=4))
    planned = [Attempt(case.spec(workers), case.vocab_size, workers, case.stage) for case in cases]
    for attempt, found in zip(planned, measured, strict=True):
        assert moments_bytes(attempt) == found.moments
    totals = [fullest(attempt, attempt.spec.phases[0]).total for attempt in planned]
    return {str(case): total / found.fullest - 1 for case, total, found in zip(cases, totals, measured, strict=True)}


@pytest.mark.parametrize(("workers", "cases"), [(1, ALONE), (4, SHARDED)])
def test_a_worker_holds_what_is_planned_within_a_tenth_and_exactly_these_moments(
    workers: int, cases: list[Case]
) -> None:
    found = differences(cases, workers)
    assert {case: part for case, part in found.items() if abs(part) > TOLERANCE} == {}
