"""Whatever a run sends: it is refused with the number of the record, or stored and read again by everybody."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.writer import Writer
from tests.serving import Served, serving

NUMBERS = [0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64, 10**400, 1.5, 1e308, -1e308, 5e-324]
OTHERS: list[object] = [True, None, float("nan"), float("inf"), float("-inf"), "30", "", "NaN", [], {}]
TIMES = ["9998-12-31T23:59:59.999999Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("extremes") / "home") as server:
        yield server


def run() -> list[dict[str, Any]]:
    """A run with a record of every kind that has numbers."""
    writer = Writer()
    begun = [*writer.begin(), writer.step(1), writer.evaluation(1), writer.checkpoint(1), writer.step(2)]
    return [*begun, writer.end("INTERRUPTED")]


FIELDS = [(number, field) for number, record in enumerate(run()) for field in record]


def read_everything(served: Served, job_id: str) -> None:
    job = f"/v1/jobs/{job_id}"
    for path in ("/v1/jobs", job, f"{job}/records", f"{job}/metrics", f"{job}/trust-ratios"):
        answer = served.http.get(path)
        assert answer.status_code == 200, (path, answer.text)
        json.loads(answer.content, parse_constant=pytest.fail)  # called for NaN and Infinity
    served.http.post(f"{job}/cancel").raise_for_status()


@settings(max_examples=60)
@given(place=st.sampled_from(FIELDS), value=st.sampled_from([*NUMBERS, *OTHERS, *TIMES]))
def test_a_record_with_any_value_in_any_place_is_refused_or_can_be_read_again(
    served: Served, place: tuple[int, str], value: object
) -> None:
    number, field = place
    records = run()
    records[number][field] = value
    job_id = served.submit()["id"]
    control = json.loads((served.settings.run_folder(job_id) / "control.json").read_text())
    headers = {"Authorization": f"Bearer {control['token']}"}
    answer = httpx.post(control["url"], content=json.dumps({"records": records}), headers=headers, trust_env=False)
    assert answer.status_code in {200, 422}, answer.text
    read_everything(served, job_id)
