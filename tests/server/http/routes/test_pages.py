import httpx
import pytest

from tests.serving import Served


@pytest.mark.parametrize("path", ["/", "/jobs/anything"])
def test_the_dashboard_is_one_page_for_every_path(served: Served, path: str) -> None:
    answer = served.http.get(path)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert f'data-home="{served.settings.home}"' in answer.text
    assert "{" not in answer.text  # every place is filled


def test_files_of_the_dashboard_are_open_and_asked_for_again_by_their_tag(served: Served) -> None:
    with httpx.Client(base_url=served.url, trust_env=False) as stranger:
        answer = stranger.get("/static/pages/app.js")
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")
        again = stranger.get("/static/pages/app.js", headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304
        assert stranger.get("/static/../app.py").status_code in {401, 404}
        assert stranger.get("/static/%2e%2e/app.py").status_code in {401, 404}


def test_a_server_without_a_cluster_is_healthy_but_not_ready_and_says_why_to_everybody(served: Served) -> None:
    with httpx.Client(base_url=served.url, trust_env=False) as stranger:
        assert stranger.get("/healthz").status_code == 200
        answer = stranger.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["detail"] in {
        "there is no cluster in this test",
        "the scheduler has not asked the cluster yet",
    }
