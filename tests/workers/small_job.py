"""A job that trains in a second, and a text for it."""

from pathlib import Path
from typing import Any

PHASE = {"seq_len": 32, "global_batch_size": 8, "micro_batch_size": 2, "steps": 6, "lr": 5e-3, "warmup": 0.5}


def document(text: Path, workers: int = 1, zero_stage: int | str = 2, **changes: Any) -> dict[str, Any]:
    return {
        "name": "loop",
        "model": {"layers": 2, "hidden": 16, "heads": 2, "intermediate": 32, "max_positions": 32, "dropout": 0.0},
        "data": {"corpus": [str(text)], "vocab": 90},
        "phases": [PHASE],
        "parallel": {"workers": workers, "zero_stage": zero_stage},
        "checkpoint": {"every_steps": 2, "keep": 9},
    } | changes


def four_steps(text: Path, workers: int = 1, zero_stage: int | str = 2, **changes: Any) -> dict[str, Any]:
    """Name a job with checkpoints at steps 2 and 4 that does not export its model by itself."""
    phases = [PHASE | {"steps": 4}]
    return document(text, workers, zero_stage, phases=phases, export={"at_end": False}) | changes


def stories() -> str:
    """Tell forty little stories of a few words."""
    who, does = ("The cat", "A dog", "My aunt", "No one", "The sea"), ("sleeps", "runs home", "sees the moon", "waits")
    return "\n\n".join(" ".join(f"{a} {b}." for a in who[i % 3 :] for b in does[: 2 + i % 3]) for i in range(40))
