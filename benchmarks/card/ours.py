"""This project's own training at two sequence lengths, counted by its records and profiled for some of its steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from benchmarks.card.sizes import Size
from benchmarks.card.traced import Profile, events_of, profile
from workers.contract.documents import parse_spec
from workers.contract.records import EvaluationRecord, Record, StepRecord
from workers.contract.run.folder import RunFolder
from workers.ranks import process_group
from workers.training import loop
from workers.training.reporting.reporter import Reporter

BLOCK = 4
"""Steps from one evaluation to the next. The clock of the records is read there, so a block is timed by itself."""
COUNTED = range(BLOCK + 1, 3 * BLOCK + 1)
STEPS = 4 * BLOCK
"""Of a phase: a block of warm-up, two that are counted, and one that is profiled."""


class Watch:
    """Listens to the records of a run, and profiles the last block of each phase.

    Attributes:
        profiles: One for each phase.
    """

    def __init__(self, sizes: Sequence[Size], device: str) -> None:
        self.profiles: list[Profile] = []
        self._steps: list[StepRecord] = []
        self._sizes, self._device = sizes, device
        self._running: profiler | None = None

    def on_record(self, record: Record) -> None:
        """Take note of a record; training waits meanwhile."""
        if isinstance(record, EvaluationRecord):
            if record.step % STEPS == COUNTED.stop - 1:
                self._start()
            elif self._running is not None:
                self._sum_up(self._running)
        elif isinstance(record, StepRecord):
            self._steps.append(record)
            if self._running is not None and record.step % STEPS == 0:
                self._running.stop()

    def tokens_per_s(self, phase: int) -> float:
        """Real tokens a second of the counted steps."""
        counted = [step for step in self._steps if step.phase == phase and step.step - phase * STEPS in COUNTED]
        return sum(step.tokens or 0 for step in counted) / sum(step.step_s for step in counted)

    def peak_memory_bytes(self, phase: int) -> int:
        """Most memory allocated until the end of a phase; on a CPU, most that was resident."""
        return max(step.peak_memory_bytes or 0 for step in self._steps if step.phase == phase)

    def _start(self) -> None:
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._device == "cuda" else [])]
        self._running = profiler(activities=kinds)
        self._running.start()

    def _sum_up(self, running: profiler) -> None:
        profiled = self._steps[-BLOCK:]
        events = events_of(running.events() or [])  # type: ignore[no-untyped-call]  # not annotated in torch
        self.profiles.append(profile(events, len(profiled), sum(step.step_s for step in profiled)))
        self._running = None


def train(sizes: Sequence[Size], vocabulary: Path, folder: Path, data: Path, device: str) -> Watch:
    """Train a phase for each size, all of one model, and return what was seen of it."""
    spec = parse_spec(document(sizes, vocabulary, device))
    folder.mkdir(parents=True)
    run, watch = RunFolder(folder), Watch(sizes, device)
    reporter = Reporter(run, on_record=watch.on_record)
    try:
        with process_group(spec):
            loop.train(spec, run, data, reporter=reporter)
    finally:
        reporter.close()
    return watch


def document(sizes: Sequence[Size], vocabulary: Path, device: str) -> dict[str, Any]:
    """Return the job: LAMB with its defaults, the product's defaults wherever there is a choice."""
    return {
        "name": "speed",
        "model": {"preset": sizes[0].model},
        "data": {
            "corpus": ["builtin:austen"],
            "validation": ["builtin:austen-valid"],
            "vocab": str(vocabulary),
        },
        "phases": [
            {
                "seq_len": size.seq_len,
                "global_batch_size": size.batch,
                "micro_batch_size": size.micro_batch,
                "steps": STEPS,
                "lr": 1e-3,
            }
            for size in sizes
        ],
        "parallel": {"workers": 1, "gpus_per_worker": int(device == "cuda")},
        "evaluation": {"every_steps": BLOCK, "sequences": 1},
        "checkpoint": {"every_steps": len(sizes) * STEPS, "keep": 1},
        "export": {"at_end": False},
    }
