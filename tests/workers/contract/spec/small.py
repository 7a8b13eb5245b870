"""A small valid specification, changed as a test needs it."""

from workers.contract.documents import parse_spec
from workers.contract.spec.job import JobSpec

PHASE: dict[str, object] = {"seq_len": 64, "global_batch_size": 96, "micro_batch_size": 8, "steps": 3, "lr": 1e-3}


def spec(**changes: object) -> JobSpec:
    """Return the specification with these sections in place of its own."""
    return parse_spec({"name": "tiny", "data": {"corpus": ["builtin:austen"]}, "phases": [PHASE]} | changes)
