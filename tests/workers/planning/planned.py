"""Jobs for tests of planning, small enough to be trained and built."""

from typing import Any

from workers.contract.documents import parse_spec
from workers.contract.spec.job import JobSpec

MODEL = {"layers": 3, "hidden": 32, "heads": 4, "intermediate": 80, "max_positions": 32, "dropout": 0.0}


def make_spec(workers: int = 1, stage: int = 1, micro_batches: int = 2, **changes: Any) -> JobSpec:
    """Return a job whose workers take `micro_batches` of 2 rows of 16 tokens in a step."""
    phase = {
        "seq_len": 16,
        "global_batch_size": 2 * micro_batches * workers,
        "micro_batch_size": 2,
        "steps": 3,
        "lr": 1e-3,
    }
    document = {
        "name": "planned",
        "model": MODEL,
        "data": {"corpus": ["builtin:austen"], "vocab": 90},
        "phases": [phase],
        "parallel": {"workers": workers, "zero_stage": stage},
    }
    return parse_spec(document | changes)
