"""Runs that nobody made, for tests of what is written about them."""

from benchmarks.scaling.plan import Run
from benchmarks.scaling.results import Result, Results, Setting

SETTING = Setting("bert-tiny", 64, 8192, 1.0, 11_570, (64, 256), (0, 1), "cpu")


def result(run: Run, loss: float | None) -> Result:
    return Result(run, SETTING.steps(run.batch), loss, None if loss is None else 0.125, 1024, 700_000, 60.0)


def made_up() -> Results:
    """LAMB is searched and done for the first seed, AdamW only begun."""
    runs = {
        Run("lamb", 64, 0.02, 0.05, 0): 6.25,
        Run("lamb", 64, 0.04, 0.05, 0): None,
        Run("lamb", 64, 0.01, 0.05, 0): 6.5,
        Run("lamb", 256, 0.04, 0.2, 0): 6.75,
        Run("lamb", 64, 0.02, 0.05, 1): 6.35,
        Run("adamw", 64, 0.002, 0.05, 0): 6.0,
    }
    return Results(SETTING, tuple(result(run, loss) for run, loss in runs.items()))
