"""Every file in configs/: that it is a valid job, and that its learning rates are those of the recipe it names."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.contract.documents import read_spec
from workers.contract.sources import check_files
from workers.contract.spec.job import JobSpec
from workers.training.optimizer import schedule_of

FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
Rates = Callable[[int], float]
"""The learning rate of a step, counted from 1, as the recipe's own code computes it."""


def read(name: str) -> JobSpec:
    return read_spec((FOLDER / f"{name}.yaml").read_text())


def nvidia(lr: float, steps: int, warmup: float) -> Rates:
    """PolyWarmUpScheduler of NVIDIA's DeepLearningExamples: the decay counts from the start."""
    return lambda t: lr * (t / steps) / warmup if t / steps < warmup else lr * (1 - t / steps) ** 0.5


def gluonnlp(lr: float, steps: int, warmup: float, hold: float = 0.0) -> Rates:
    """GluonNLP's run_pretraining.py, which rounds the warm-up and the hold down to whole steps."""
    rising, level = int(steps * warmup), int(steps * warmup) + int(steps * hold)
    return lambda t: lr * t / rising if t <= rising else lr if t <= level else lr * (steps - t) / (steps - level)


def deepspeed(lr: float, offset: float, warmup_steps: int, every: int) -> Rates:
    """DeepSpeed's warmup_exp_decay_exp after its warm-up, with its lr_offset."""
    return lambda t: offset + lr * 0.9 ** ((t - warmup_steps) / every)


def one_run_in_two_phases(before: int) -> Rates:
    """The paper's 32k: 15,625 steps, a fifth of them warm-up, then linear to zero, whatever the sequence length."""
    return lambda t: 5e-3 * min((before + t) / 3125, (15_625 - before - t) / 12_500)


RECIPES: dict[str, list[tuple[Rates, list[int]]]] = {
    "bert-base": [
        (gluonnlp(5e-3, 14_063, 0.2), [1, 2812, 8000, 14_062]),
        (gluonnlp(4e-3, 1564, 0.128), [1, 200, 900, 1563]),
    ],
    "bert-large-32k": [
        (one_run_in_two_phases(0), [1, 3125, 3126, 14_063]),
        (one_run_in_two_phases(14_063), [1, 800, 1562]),
    ],
    "bert-large-76min": [
        (gluonnlp(6e-3, 7037, 0.2843), [1, 2000, 5000, 7037]),
        (gluonnlp(4e-3, 1562, 0.128), [1, 199, 800, 1562]),
    ],
    "bert-large-adamw-32k": [
        (gluonnlp(1e-4 * math.sqrt(128), 14_063, 0.2), [1, 2812, 14_062]),
        (gluonnlp(5e-5 * math.sqrt(128), 1562, 0.128), [1, 199, 1561]),
    ],
    "bert-large-deepspeed-44min": [
        (deepspeed(11e-3, 1e-3, 150, 250), [150, 151, 400, 3000, 6149]),
        (deepspeed(2e-3, 0.0, 150, 150), [150, 151, 300, 610]),
    ],
    "bert-large-gluonnlp-32k": [
        (gluonnlp(5e-3, 14_063, 0.2), [1, 2812, 8000, 14_062]),
        (gluonnlp(4e-3, 1564, 0.128), [1, 200, 900, 1563]),
    ],
    "bert-large-lans-96k": [
        (gluonnlp(6.75e-3, 3519, 0.4265, 0.2735), [1, 1500, 1502, 2462, 3000, 3519]),
        (gluonnlp(4e-3, 782, 0.181), [1, 141, 500, 782]),
    ],
    "bert-large-mlperf-8xh200": [(lambda t: 9.6e-4 * (1 - t / 3680), [1, 1840, 3679, 3680])],
    "bert-large-nvidia": [
        (nvidia(6e-3, 7038, 0.2843), [1, 2000, 2001, 5000, 7037, 7038]),
        (nvidia(4e-3, 1563, 0.128), [1, 200, 201, 1000, 1563]),
    ],
    "demo": [(gluonnlp(2e-2, 200, 0.1), [1, 20, 21, 199, 200])],
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_is_a_valid_job_named_like_its_file(path: Path) -> None:
    assert read_spec(path.read_text()).name == path.stem


@pytest.mark.parametrize("name", [path.stem for path in CONFIGS])
def test_every_config_has_the_learning_rates_of_its_recipe(name: str) -> None:
    phases, recipe = read(name).phases, RECIPES[name]
    assert len(phases) == len(recipe)
    for phase, (rates, steps) in zip(phases, recipe, strict=True):
        schedule = schedule_of(phase)
        # Some recipes round the warm-up down to whole steps: by one step in 200 at most.
        assert [schedule(step) for step in steps] == pytest.approx([rates(step) for step in steps], rel=5e-3, abs=1e-12)


def test_nvidias_rate_jumps_down_where_its_warm_up_ends() -> None:
    first, second = (schedule_of(phase) for phase in read("bert-large-nvidia").phases)
    assert [first(2000) / 6e-3, first(2001) / 6e-3] == pytest.approx([0.9996, 0.8460], abs=1e-4)
    assert [second(200) / 4e-3, second(201) / 4e-3] == pytest.approx([0.9997, 0.9335], abs=1e-4)
    exact = nvidia(6e-3, 7038, 0.2843)
    assert all(first(step) == pytest.approx(exact(step), rel=1e-14) for step in range(1, 7039))


def test_the_rate_of_the_papers_32k_goes_on_from_one_phase_to_the_next() -> None:
    first, second = (schedule_of(phase) for phase in read("bert-large-32k").phases)
    assert first(3125) == pytest.approx(5e-3, rel=1e-5)
    assert first(14_063) == pytest.approx(6.248e-4, rel=1e-9)
    assert first(14_063) - second(1) == pytest.approx(first(14_062) - first(14_063), rel=1e-4)


def test_deepspeeds_warm_up_has_its_150_steps_and_ends_at_the_published_rate_above_the_offset() -> None:
    first, second = (schedule_of(phase) for phase in read("bert-large-deepspeed-44min").phases)
    assert [first(75), first(150)] == pytest.approx([6e-3, 12e-3], rel=1e-3)
    assert [second(75), second(150)] == pytest.approx([1e-3, 2e-3], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("bert-large-32k", 512_000_000),
        ("bert-large-76min", 512_000_000),
        ("bert-large-adamw-32k", 512_000_000),
        ("bert-large-deepspeed-44min", 423_000_000),
        ("bert-large-gluonnlp-32k", 512_000_000),
        ("bert-large-nvidia", 512_000_000),
    ],
)
def test_the_steps_and_batches_give_the_samples_of_the_published_run(name: str, samples: int) -> None:
    seen = sum(phase.steps * phase.global_batch_size for phase in read(name).phases)
    assert seen == pytest.approx(samples, rel=2e-3)


def test_mlperfs_batch_is_eight_gpus_of_packed_rows_and_begins_with_its_named_checkpoint() -> None:
    spec = read("bert-large-mlperf-8xh200")
    assert (spec.phases[0].global_batch_size, spec.data.packing, spec.world_sizes()) == (768 // 2, True, [8])
    assert spec.evaluation.every_steps == math.floor(0.05 * (230.23 * 768 + 3e6) / 25e3) * 25_000 // 768
    assert spec.model.init_from is not None
    assert spec.model.init_from.endswith("28252")


def test_the_demo_needs_no_file_of_its_user() -> None:
    check_files(read("demo").data)


def test_bert_large_takes_the_steps_of_the_published_recipes_on_the_workers_that_divide_them() -> None:
    assert [read(name).total_steps for name in ("bert-large-nvidia", "bert-large-76min")] == [8601, 8599]
    assert [read(name).world_sizes() for name in ("bert-large-nvidia", "bert-large-76min")] == [[4, 8], [4, 8]]
    assert [(phase.seq_len, phase.global_batch_size) for phase in read("bert-large-nvidia").phases] == [
        (128, 65_536),
        (512, 32_768),
    ]
