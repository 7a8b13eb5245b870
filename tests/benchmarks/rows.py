"""A made-up run."""

from benchmarks.contenders import BASELINE, CLIPPED, OURS, PYTORCH_OPTIMIZER, TORCH_OPTIMIZER
from benchmarks.results import Machine, Report, Setting, result

MACHINE = Machine("a processor", 2, 16.0, None, {"torch": "2.13.0"}, "fused", 1)


def made_up(model: str = "bert-base") -> Report:
    """Return a run in which AdamW takes 1 s, ours 1.5 s, and on two ranks 0.6 and 0.8 s."""
    one, two = Setting(model, 1, 1, 1), Setting(model, 2, 1, 1)
    seconds = {BASELINE: 1.0, CLIPPED: 1.4, OURS: 1.5, TORCH_OPTIMIZER: 9.0, PYTORCH_OPTIMIZER: 6.0}
    rows = [result(one, name, [s], [1.0], [0.5], 28, 8, temporary_bytes=1e-4) for name, s in seconds.items()]
    rows += [
        result(two, name, [s], [0.6], [0.5], 28, 8, whole=[seconds[name]], collectives=2)
        for name, s in ((BASELINE, 0.6), (OURS, 0.8))
    ]
    return Report(MACHINE, rows, ["timm Lamb is not measured: timm is not installed"])
