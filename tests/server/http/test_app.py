"""What the application adds to every answer."""

from tests.serving import Served


def test_every_answer_forbids_scripts_of_others(served: Served) -> None:
    for path in ("/", "/healthz", "/v1/jobs", "/v1/nothing", "/static/pages/app.js"):
        policy = served.http.get(path).headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
