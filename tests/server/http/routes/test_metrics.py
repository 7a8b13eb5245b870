import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.server.writer import Writer
from tests.serving import NAMES, Served, run_records, status, step, tensors


def unpack(body: bytes) -> tuple[dict[str, Any], NDArray[np.float16]]:
    """Read packed ratios as the documentation of the route says."""
    end = 4 + int.from_bytes(body[:4], "little")
    head = json.loads(body[4:end])
    return head, np.frombuffer(body[end:], dtype="<f2").reshape(len(head["names"]), len(head["steps"]))


@pytest.fixture
def job_id(served: Served) -> str:
    """A job of 100 steps, whose loss is 10 / step and whose first trust ratio is step / 10."""
    job_id: str = served.submit()["id"]
    served.push(job_id, run_records(100))
    return job_id


def test_series_are_whole_where_the_buckets_suffice(served: Served, job_id: str) -> None:
    found = served.http.get(f"/v1/jobs/{job_id}/metrics", params={"series": "loss,lr"}).json()
    assert found["steps"] == list(range(1, 101))
    assert set(found["series"]) == {"loss", "lr"}
    loss = found["series"]["loss"]
    assert loss["min"] == loss["max"] == loss["last"] == pytest.approx([10 / n for n in range(1, 101)])


def test_buckets_keep_the_extremes_and_the_last_value(served: Served, job_id: str) -> None:
    found = served.http.get(f"/v1/jobs/{job_id}/metrics?series=loss&buckets=4&from=11&to=50").json()
    assert found["steps"] == [20, 30, 40, 50]
    edges = list(pairwise([10, 20, 30, 40, 50]))
    loss = found["series"]["loss"]
    assert loss["max"] == pytest.approx([10 / (low + 1) for low, _ in edges])
    assert loss["min"] == loss["last"] == pytest.approx([10 / high for _, high in edges])


def test_a_missing_number_is_null_and_does_not_hide_its_neighbours(served: Served) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, [tensors(1), step(2, 1), step(3, 2) | {"loss": None}])
    for buckets, least, last in ((2, [10, None], [10, None]), (1, [10], [None])):
        found = served.http.get(f"/v1/jobs/{job_id}/metrics?series=loss&buckets={buckets}").json()
        assert (found["series"]["loss"]["min"], found["series"]["loss"]["last"]) == (least, last)


def test_held_out_figures_stand_at_the_steps_that_were_judged_and_survive_pooling(served: Served) -> None:
    writer, job_id = Writer(), served.submit()["id"]
    served.push(job_id, [*writer.begin(), *writer.steps(1, 3), writer.evaluation(3, mlm_loss=6.5)])
    served.push(job_id, [*writer.steps(4, 8), writer.evaluation(6, mlm_loss=5.5)])
    route = f"/v1/jobs/{job_id}/metrics?series=loss,evaluation_mlm_loss,evaluation_nsp_accuracy"
    found = served.http.get(route).json()
    assert found["steps"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found["series"]["evaluation_mlm_loss"]["last"] == [None, None, 6.5, None, None, 5.5, None, None]
    assert found["series"]["evaluation_nsp_accuracy"]["last"][2] == 0.5
    assert all(found["series"]["loss"]["last"])
    pooled = served.http.get(f"{route}&buckets=2").json()
    assert pooled["series"]["evaluation_mlm_loss"] == {"min": [6.5, 5.5], "max": [6.5, 5.5], "last": [6.5, 5.5]}
    records = served.http.get(f"/v1/jobs/{job_id}/records?kind=evaluation").json()["records"]
    assert [(record["step"], record["perplexity"]) for record in records] == [(3, 665.0), (6, 665.0)]


def test_an_unknown_series_is_refused_with_the_names_of_those_there_are(served: Served, job_id: str) -> None:
    answer = served.http.get(f"/v1/jobs/{job_id}/metrics?series=loss,los")
    assert answer.status_code == 422
    assert "there is no series los; the series are loss, mlm_loss" in answer.json()["detail"]


def test_a_job_without_steps_has_empty_histories(served: Served) -> None:
    job_id = served.submit()["id"]
    metrics = served.http.get(f"/v1/jobs/{job_id}/metrics?series=loss").json()
    assert metrics == {"steps": [], "series": {"loss": {"min": [], "max": [], "last": []}}}
    ratios = served.http.get(f"/v1/jobs/{job_id}/trust-ratios").json()
    assert (ratios["steps"], ratios["names"], ratios["values"]) == ([], [], [])
    packed = served.http.get(f"/v1/jobs/{job_id}/trust-ratios", headers={"Accept": "application/octet-stream"})
    assert unpack(packed.content)[1].size == 0


def test_trust_ratios_come_by_name_and_step(served: Served, job_id: str) -> None:
    found = served.http.get(f"/v1/jobs/{job_id}/trust-ratios").json()
    assert found["names"] == NAMES
    assert found["adapted"] == [True, False, True]
    assert found["steps"] == list(range(1, 101))
    assert found["values"][0] == pytest.approx([n / 10 for n in range(1, 101)])
    assert found["values"][2] == [None] * 100


@pytest.mark.parametrize(
    ("query", "steps"),
    [
        ("columns=4", [25, 50, 75, 100]),
        ("columns=3", [34, 68, 100]),
        ("columns=1", [100]),
        ("from=10&to=20&columns=2", [15, 20]),
        ("from=99&to=500", [99, 100]),
    ],
)
def test_each_column_is_the_last_step_of_its_bucket(served: Served, job_id: str, query: str, steps: list[int]) -> None:
    found = served.http.get(f"/v1/jobs/{job_id}/trust-ratios?{query}").json()
    assert found["steps"] == steps
    assert found["values"][0] == pytest.approx([n / 10 for n in steps])


def test_packed_ratios_are_those_of_the_document(served: Served, job_id: str) -> None:
    path = f"/v1/jobs/{job_id}/trust-ratios?columns=7"
    packed = served.http.get(path, headers={"Accept": "application/octet-stream"})
    head, values = unpack(packed.content)
    document = served.http.get(path).json()
    expected = np.array(document.pop("values"), dtype=np.float64)
    assert head == document
    assert head["names"] == NAMES
    np.testing.assert_allclose(values, expected, rtol=1e-3)


def test_skipped_steps_are_told_also_where_their_column_shows_another_step(served: Served) -> None:
    job_id = served.submit()["id"]
    skipped: dict[str, Any] = {"skipped": True, "trust_ratio": None, "weight_norm": None, "update_norm": None}
    taken = [step(n + 1, n, **(skipped if n in {4, 5, 6, 8} else {})) for n in range(1, 9)]
    served.push(job_id, [tensors(1), *taken])
    whole = served.http.get(f"/v1/jobs/{job_id}/trust-ratios").json()
    assert (whole["steps"], whole["skipped"]) == ([1, 2, 3, 4, 5, 6, 7, 8], [4, 5, 6, 8])
    assert whole["values"][0] == [0.1, 0.2, 0.3, None, None, None, 0.7, None]
    thinned = served.http.get(f"/v1/jobs/{job_id}/trust-ratios?columns=4").json()
    assert (thinned["steps"], thinned["skipped"]) == ([2, 3, 6, 7], [4, 5, 6, 8])
    assert thinned["values"][0] == [0.2, 0.3, None, 0.7]


@pytest.mark.parametrize(("what", "first"), [("trust_ratio", 0.1), ("weight_norm", 1.0), ("update_norm", 0.01)])
def test_each_of_the_three_numbers_has_its_history(served: Served, job_id: str, what: str, first: float) -> None:
    found = served.http.get(f"/v1/jobs/{job_id}/trust-ratios?what={what}").json()
    assert (found["what"], found["values"][0][0]) == (what, first)


def test_names_of_all_sets_come_in_order_of_first_appearance_with_nulls_where_a_step_has_none(served: Served) -> None:
    job_id = served.submit()["id"]
    other = tensors(3, names=["new", "layer.0.weight"], adapted=[True, True])
    served.push(job_id, [tensors(1), step(2, 1), other, step(4, 2, ratios=[5.0, 6.0], set=other["set"]), step(5, 3)])
    found = served.http.get(f"/v1/jobs/{job_id}/trust-ratios").json()
    assert found["names"] == [*NAMES, "new"]
    assert found["values"] == [[0.1, None, 0.3], [1.0, None, 1.0], [None, 6.0, None], [None, 5.0, None]]
    assert found["sets"] == {tensors(1)["set"]: [0, 1, 2], other["set"]: [3, 2]}
    packed = served.http.get(f"/v1/jobs/{job_id}/trust-ratios", headers={"Accept": "application/octet-stream"})
    assert unpack(packed.content)[0]["names"] == found["names"]


def test_a_step_that_was_taken_again_shows_its_second_values(served: Served) -> None:
    job_id = served.submit()["id"]
    first = [status(1, "RUNNING"), tensors(2), step(3, 1), step(4, 2)]
    served.push(job_id, [*first, step(5, 2, loss=3.0, ratios=[7.0, 1.0, 1.0])])
    found = served.http.get(f"/v1/jobs/{job_id}/trust-ratios").json()
    assert [row[1] for row in found["values"]] == [7.0, 1.0, 1.0]
    assert served.http.get(f"/v1/jobs/{job_id}/metrics?series=loss").json()["series"]["loss"]["last"] == [10.0, 3.0]


@pytest.mark.parametrize("query", ["metrics?from=", "metrics?to=", "trust-ratios?from=", "events?after="])
def test_a_step_that_no_database_can_hold_is_refused(served: Served, job_id: str, query: str) -> None:
    answer = served.http.get(f"/v1/jobs/{job_id}/{query}1{30 * '0'}")
    assert (answer.status_code, answer.json()["errors"][0]["problem"]) == (422, "is more than 9007199254740991")


@pytest.mark.parametrize("route", ["metrics", "trust-ratios"])
def test_a_range_that_ends_before_it_begins_is_refused(served: Served, job_id: str, route: str) -> None:
    answer = served.http.get(f"/v1/jobs/{job_id}/{route}?from=5&to=2")
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert "there are no steps from 5 to 2" in answer.json()["detail"]
    assert served.http.get(f"/v1/jobs/{job_id}/{route}?from=2&to=2").json()["steps"] == [2]
