from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.serving import Served


def _create(served: Served, **changes: Any) -> httpx.Response:
    return served.http.post("/v1/tokens", json={"owner": "ada", "role": "operator"} | changes)


def _status(served: Served, token: str) -> int:
    answer = httpx.get(f"{served.url}/v1/jobs", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    return answer.status_code


def test_a_token_is_shown_once_listed_without_itself_and_revoked(served: Served) -> None:
    made = _create(served, expires_in_days=30).json()
    lifetime = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert lifetime == timedelta(days=30)
    assert _status(served, made["token"]) == 200
    listed = served.http.get("/v1/tokens").json()["tokens"]
    assert listed == [{name: value for name, value in made.items() if name != "token"}]
    assert (listed[0]["owner"], listed[0]["role"], listed[0]["created_by"]) == ("ada", "operator", "admin")
    assert served.http.delete(f"/v1/tokens/{made['id']}").status_code == 204
    assert _status(served, made["token"]) == 401
    again = served.http.delete(f"/v1/tokens/{made['id']}")
    assert (again.status_code, again.json()["type"]) == (404, "urn:bigbatch:problem:token-not-found")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"owner": ""}, "owner"),
        ({"owner": "admin"}, "owner"),
        ({"owner": "job:1"}, "owner"),
        ({"owner": "a" * 101}, "owner"),
        ({"role": "job"}, "role"),
        ({"role": None}, "role"),
        ({"expires_in_days": 0}, "expires_in_days"),
        ({"expires_in_days": 10**30}, "expires_in_days"),
        ({"expires_in_days": True}, "expires_in_days"),
        ({"end": 1}, "end"),
    ],
)
def test_a_token_that_cannot_be_made_is_refused_by_its_field(
    served: Served, changes: dict[str, Any], field: str
) -> None:
    answer = _create(served, **changes)
    assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (422, [field])
    assert served.http.get("/v1/tokens").json() == {"tokens": []}


def test_a_new_admin_token_ends_the_old_one_and_its_sessions_and_no_other_token(served: Served) -> None:
    old, other = served.token, _create(served).json()["token"]
    with httpx.Client(base_url=served.url, trust_env=False) as browser:
        browser.get("/", params={"token": old})
        assert browser.get("/v1/jobs").status_code == 200
        new = served.http.post("/v1/tokens/rotate-admin").json()["token"]
        assert browser.get("/v1/jobs").status_code == 401
    assert [_status(served, token) for token in (old, new, other)] == [401, 200, 200]
    assert served.token == new
