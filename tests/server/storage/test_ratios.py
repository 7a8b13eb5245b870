"""Quantiles of the trust ratios of a step."""

import math

import numpy as np
import pytest

from server.storage.ratios import quantiles
from tests.server.storage.house import House
from tests.serving import step, tensors


def test_a_step_tells_the_quantiles_of_the_adapted_tensors_that_have_a_ratio(house: House) -> None:
    house.ingest(tensors(1), step(2, 1, ratios=[0.2, 1.0, 0.4]), step(3, 2, ratios=[0.2, 1.0, None]))
    assert [record["trust_ratio_median"] for record in house.stored()[1:]] == pytest.approx([0.3, 0.2])
    assert house.stored()[1]["trust_ratio_p90"] == pytest.approx(0.38)


def packed(*ratios: float) -> bytes:
    return np.array(ratios, dtype="<f4").tobytes()


def test_quantiles_are_those_of_the_adapted_and_finite_ratios_alone() -> None:
    ratios = packed(*range(11), 99.0, math.nan)
    found = quantiles(ratios, [True] * 11 + [False, True])
    assert found == {"trust_ratio_median": 5.0, "trust_ratio_p10": 1.0, "trust_ratio_p90": 9.0}


@pytest.mark.parametrize(("ratios", "adapted"), [((), []), ((0.5,), [False]), ((math.nan,), [True])])
def test_a_step_without_such_a_ratio_has_no_quantiles(ratios: tuple[float, ...], adapted: list[bool]) -> None:
    assert set(quantiles(packed(*ratios), adapted).values()) == {None}
