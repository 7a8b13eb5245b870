"""The demo's model on the demo's text, whatever its moments are stored in."""

from pathlib import Path
from statistics import mean

import pytest

from tests.workers.training.running import steps, train
from workers.contract.documents import read_file

DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"
STEPS = 20


def final_loss(folder: Path, home: Path, seed: int, moments: str) -> float:
    """Train the demo for less long on smaller batches, and return the mean loss of the last five steps, in nats."""
    demo = read_file(DEMO)
    del demo["evaluation"], demo["data"]["validation"]
    changes = {
        "export": {"at_end": False},
        "seed": seed,
        "optimizer": {"moments": moments},
        "parallel": {"workers": 1, "zero_stage": 0},
        "phases": [demo["phases"][0] | {"steps": STEPS, "global_batch_size": 32}],
    }
    train(demo | changes, folder, home)
    return mean([step.loss for step in steps(folder) if step.loss is not None][-5:])


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """With full moments, for three seeds."""
    home = tmp_path_factory.getbasetemp() / "demo"
    return [final_loss(tmp_path_factory.mktemp("full"), home, seed, "full") for seed in (0, 1, 2)]


@pytest.mark.parametrize("moments", ["bfloat16", "8bit"])
def test_the_loss_is_that_of_full_moments_within_the_noise_of_seeds(
    moments: str, losses: list[float], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    narrow = final_loss(tmp_path, tmp_path_factory.getbasetemp() / "demo", 0, moments)
    noise = max(losses) - min(losses)
    assert 0 < noise < 0.5
    assert narrow != losses[0]
    assert abs(narrow - losses[0]) < noise / 2
    assert narrow < 9  # at the start it is ln(8192) = 9.01 and the sentence task's 0.69
