"""What a screen is given of a run: series pooled to their extremes, and the matrix of all tensors."""

import numpy as np
import pytest

from server.errors import ParameterError
from server.storage.histories import Histories
from tests.server.storage.house import House
from tests.serving import NAMES, step, tensors


def test_a_step_whose_names_were_lost_keeps_its_numbers_and_is_given_no_names(house: House) -> None:
    house.ingest(step(1, 1), tensors(2, names=["a"], adapted=[True]))
    matrix = Histories(house.database).matrix(house.job.id, "trust_ratio", start=1, end=None, columns=100)
    assert matrix.names == ["a"]
    assert np.isnan(matrix.values).all()
    assert house.stored()[0]["trust_ratio"] == step(1, 1)["trust_ratio"]
    assert house.now().loss == 10


def test_sets_that_change_within_a_push_keep_their_own_names(house: House) -> None:
    few = tensors(3, names=["embeddings.weight"], adapted=[True])
    house.ingest(tensors(1), step(2, 1), few, step(4, 2, ratios=[0.25], set=few["set"]), step(5, 3))
    matrix = Histories(house.database).matrix(house.job.id, "trust_ratio", start=1, end=None, columns=100)
    assert matrix.names == NAMES
    np.testing.assert_allclose(matrix.values, [[0.1, 0.25, 0.3], [1, np.nan, 1], [np.nan] * 3], rtol=1e-6)


def test_a_bucket_has_the_extremes_and_the_last_value_of_its_steps_and_passes_over_missing_ones(house: House) -> None:
    norms = [5.0, None, 3.0, 9.0, 4.0]
    house.ingest(
        tensors(1), *(step(number + 1, number) | {"grad_norm": norm} for number, norm in enumerate(norms, start=1))
    )
    found = Histories(house.database).metrics(house.job.id, ["grad_norm"], start=1, end=None, buckets=3)
    assert found.steps.tolist() == [2, 4, 5]
    assert (found.minimum["grad_norm"].tolist(), found.maximum["grad_norm"].tolist()) == (
        [5.0, 3.0, 4.0],
        [5.0, 9.0, 4.0],
    )
    np.testing.assert_equal(found.last["grad_norm"], [np.nan, 9.0, 4.0])


def test_a_series_or_a_range_that_does_not_exist_is_refused(house: House) -> None:
    histories = Histories(house.database)
    with pytest.raises(ParameterError, match="there is no series speed; the series are loss, mlm_loss"):
        histories.metrics(house.job.id, ["loss", "speed"], start=1, end=None, buckets=9)
    with pytest.raises(ParameterError, match="there are no steps from 5 to 4"):
        histories.matrix(house.job.id, "trust_ratio", start=5, end=4, columns=9)
