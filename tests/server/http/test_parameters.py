import httpx
import pytest

from tests.serving import Served, run_records


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (
            "/v1/jobs?stauts=QUEUED",
            ("query.stauts", "'QUEUED'", "there is no such parameter", "did you mean 'status'?"),
        ),
        ("/v1/jobs?x=", ("query.x", "''", "there is no such parameter", "remove it; the parameters here are")),
        ("/v1/jobs/{id}?step=1", ("query.step", "'1'", "there is no such parameter", "remove it; this route has none")),
        ("/v1/jobs/{id}/metrics?start=1", ("query.start", "'1'", "there is no such parameter", "remove it")),
        ("/v1/jobs/{id}/trust-ratios?bucket=1", ("query.bucket", "'1'", "there is no such parameter", "remove it")),
        ("/v1/jobs/{id}/events?token=secret", ("query.token", "'secret'", "there is no such parameter", "remove it")),
        ("/v1/jobs?limit=1&limit=2", ("query.limit", "'1', '2'", "is given more than once", "write one value")),
    ],
)
def test_a_parameter_that_nobody_would_read_is_refused_and_the_known_ones_are_named(
    served: Served, path: str, problem: tuple[str, str, str, str]
) -> None:
    answer = served.http.get(path.format(id=served.submit()["id"]))
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    (error,) = answer.json()["errors"]
    assert (error["field"], error["value"], error["problem"]) == problem[:3]
    assert error["remedy"].startswith(problem[3])


def test_a_request_that_changes_something_changes_nothing_where_it_has_an_unknown_parameter(served: Served) -> None:
    job_id = served.submit()["id"]
    assert served.http.post(f"/v1/jobs/{job_id}/cancel?force=true").status_code == 422
    assert served.job(job_id)["status"] == "QUEUED"


def test_parameters_that_are_known_pass_and_one_that_takes_several_values_may_be_given_again(served: Served) -> None:
    job_id = served.submit()["id"]
    for query in (
        "/v1/jobs?status=QUEUED&status=RUNNING&label=a&limit=3",
        f"/v1/jobs/{job_id}/records?kind=log&kind=alert&limit=9",
        f"/v1/jobs/{job_id}/metrics?series=loss&from=1&to=2&buckets=3",
        f"/v1/jobs/{job_id}/trust-ratios?what=weight_norm&from=1&to=2&columns=3",
    ):
        assert served.http.get(query).status_code == 200, query


def test_a_page_takes_any_parameter_because_links_get_them_from_others(served: Served) -> None:
    for path in ("/healthz", "/readyz", "/", "/docs"):
        cookie = {"Authorization": f"Bearer {served.token}"}
        answer = httpx.get(f"{served.url}{path}?utm_source=mail", headers=cookie, trust_env=False)
        assert answer.status_code in {200, 503}, path


NUMBERS = ["-1", "0", "1.5", "true", "NaN", "1e3", "", "x", *(str(2**bits) for bits in (31, 53, 63, 64)), "9" * 5000]


def test_no_number_in_a_query_or_a_header_makes_the_server_fail(served: Served) -> None:
    job_id = served.submit()["id"]
    served.push(job_id, run_records(3))
    tried = 0
    for path, methods in served.http.get("/openapi.json").json()["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", []):
            if "integer" not in str(parameter["schema"]) or parameter["in"] == "path":
                continue
            for number in NUMBERS:
                given = {parameter["name"]: number}
                query, headers = (given, {}) if parameter["in"] == "query" else ({}, given)
                answer = served.http.get(path.format(job_id=job_id), params=query, headers=headers)
                assert answer.status_code in {200, 204, 404, 422}, (path, given, answer.text)
                tried += 1
    assert tried >= 10 * len(NUMBERS)
