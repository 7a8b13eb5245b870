from pathlib import Path
from typing import Any

import pytest
import yaml

from server.jobs.sweeps import MOST_JOBS, variants
from tests.serving import TINY
from workers.contract.problems import SpecError

PAGE = (Path(__file__).parents[3] / "docs" / "sweeps.md").read_text()


def test_a_grid_combines_each_value_with_each_in_order() -> None:
    grid = {"phases[0].lr": [1e-2, 3e-3], "seed": [0, 1, 2]}
    made = variants({"job": TINY, "grid": grid})
    assert [(each["name"], each["phases"][0]["lr"], each["seed"]) for each in made] == [
        ("tiny-1", 1e-2, 0),
        ("tiny-2", 1e-2, 1),
        ("tiny-3", 1e-2, 2),
        ("tiny-4", 3e-3, 0),
        ("tiny-5", 3e-3, 1),
        ("tiny-6", 3e-3, 2),
    ]
    assert "seed" not in TINY


def test_a_list_has_the_fields_of_each_variant_and_may_name_them() -> None:
    made = variants({"job": TINY | {"labels": {}}, "list": [{"seed": 4}, {"name": "mine", "labels.kind": "b"}, {}]})
    assert [each["name"] for each in made] == ["tiny-1", "mine", "tiny-3"]
    assert (made[0]["seed"], made[1]["labels"]) == (4, {"kind": "b"})


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"job": TINY}, "has not exactly one of grid and list. Remedy: write one of them"),
        ({"job": TINY, "grid": {"seed": [1]}, "list": [{}]}, "has not exactly one of grid and list"),
        ({"job": TINY, "grid": {}}, "grid"),
        ({"job": TINY, "grid": {"seed": []}}, "grid.seed"),
        ({"job": TINY, "list": []}, "list"),
        ({"grid": {"seed": [1]}}, "job"),
        ({"job": TINY, "grids": {}}, "grids"),
        ([], "document"),
        ({"job": TINY, "grid": {"phases[7].lr": [1]}}, "phases has no entry 7"),
        ({"job": TINY, "list": [{}] * (MOST_JOBS + 1)}, "gives more than 256 jobs"),
        ({"job": TINY, "grid": {name: list(range(99)) for name in "abcdefgh"}}, "gives more than 256 jobs"),
    ],
)
def test_what_is_no_sweep_is_refused_by_its_field(document: Any, says: str) -> None:
    with pytest.raises(SpecError) as refusal:
        variants(document)
    assert says in str(refusal.value)


def test_the_example_of_the_documentation_gives_four_jobs() -> None:
    example = yaml.safe_load(PAGE.split("```yaml")[1].split("```")[0])
    assert [each["name"] for each in variants(example)] == ["rates-1", "rates-2", "rates-3", "rates-4"]
