"""The API answers as its description says, whatever is sent: valid requests and invalid ones, made from it."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.serving import Served, serving

CASES = int(os.environ.get("BIGBATCH_CONTRACT_CASES", "4"))
"""Requests of each kind for each operation; by hand more, such as BIGBATCH_CONTRACT_CASES=100."""
_BY_WORDS = ("POST /v1/jobs", "POST /v1/sweeps")
EXCLUDED = {label: [positive_data_acceptance] for label in _BY_WORDS}
"""What else must hold of requests to these is told by words and not by the schema: rules between fields, names."""


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("contract") / "home") as server:
        yield server


def _breaches(served: Served, operation: Any, mode: schemathesis.GenerationMode) -> list[str]:
    headers = {"Authorization": f"Bearer {served.token}"}

    @settings(max_examples=CASES, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    @given(case=operation.as_strategy(generation_mode=mode))
    def keeps_to_its_description(case: Any) -> None:
        case.call_and_validate(headers=headers, timeout=20, excluded_checks=EXCLUDED.get(operation.label, []))

    try:
        keeps_to_its_description()
    except (Exception, FailureGroup) as error:  # noqa: BLE001 -- of any kind, it is listed with those of the others
        found = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
        return [f"{operation.label}: {type(each).__name__}: {each}" for each in found]
    return []


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_every_operation_keeps_to_its_description(contract: Served, mode: schemathesis.GenerationMode) -> None:
    headers = {"Authorization": f"Bearer {contract.token}"}
    schema = schemathesis.openapi.from_url(f"{contract.url}/openapi.json", headers=headers)
    bounded = schema.exclude(path="/v1/events")  # its stream has no end; a job's, of no job that there is, has one
    operations = [found.ok() for found in bounded.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) > 15
    found = [breach for operation in operations for breach in _breaches(contract, operation, mode)]
    assert found == [], "\n\n".join(found)
