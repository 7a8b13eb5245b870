"""What the Jobs API answers, told from a server that answers nothing, with a small HTTP server in the place of Ray."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from server.cluster.ray_jobs import RayJobs
from server.errors import ClusterUnreachableError, SubmissionRefusedError
from server.jobs.resources import Node, Run, Submission
from workers.planning.size import Resources

NODES = [
    {"node_id": "n2", "state": "ALIVE", "resources_total": {"CPU": 8}},
    {"node_id": "n1", "state": "ALIVE", "resources_total": {"CPU": 4, "GPU": 1}},
]
GROUPS = [
    {
        "creator_job_id": "02000000",
        "bundles": [{"node_id": node, "unit_resources": {"CPU": 2}} for node in ("n2", "n2")],
    },
    {"creator_job_id": "05000000", "bundles": [{"node_id": "n1", "unit_resources": {"CPU": 1, "GPU": 1}}]},
    {"creator_job_id": "05000000", "bundles": [{"node_id": "gone", "unit_resources": {"CPU": 1}}]},
]
ONLY = "detail=true&limit=10000&filter_keys=state&filter_predicates=%3D&filter_values"
ANSWERS = {
    ("GET", "/api/version"): (200, {"version": "4", "session_name": "session_1"}),
    ("GET", f"/login/api/v0/nodes?{ONLY}=ALIVE"): (200, {"please": "log in"}),
    ("GET", f"/api/v0/nodes?{ONLY}=ALIVE"): (200, {"data": {"result": {"result": NODES}}}),
    ("GET", f"/api/v0/placement_groups?{ONLY}=CREATED"): (200, {"data": {"result": {"result": GROUPS}}}),
    ("GET", "/api/jobs/waits-a1"): (200, {"status": "PENDING", "job_id": None}),
    ("GET", "/api/jobs/runs-a1"): (200, {"status": "RUNNING", "job_id": "02000000"}),
    ("GET", "/api/jobs/done-a1"): (200, {"status": "SUCCEEDED", "job_id": "03000000"}),
    ("GET", "/api/jobs/dead-a1"): (200, {"status": "STOPPED", "job_id": None}),
    ("GET", "/api/jobs/odd-a1"): (500, {}),
}

REFUSALS = {"bad-a1": 400, "runs-a1": 400, "strange-a1": 403, "early-a1": 429}


class _Head(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(*ANSWERS.get(("GET", self.path), (404, {})))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(REFUSALS.get(body["submission_id"], 500), {"why": "no such option"})

    def _answer(self, status: int, document: object) -> None:
        authorized = self.headers["Authorization"] == "Bearer token"
        self.send_response(status if authorized else 401)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ray() -> Iterator[RayJobs]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Head) as head, httpx.Client(trust_env=False) as http:
        thread = threading.Thread(target=head.serve_forever)
        thread.start()
        yield RayJobs(http, f"http://127.0.0.1:{head.server_port}", "token")
        head.shutdown()
        thread.join()


def test_each_living_node_says_in_a_fixed_order_what_it_has_and_what_a_submission_and_others_hold_of_it(
    ray: RayJobs,
) -> None:
    others = Resources(cpus=1, gpus=1)
    submissions = {name: ray.submission(name) for name in ("runs-a1", "waits-a1", "never-a1")}
    assert ray.nodes(submissions) == [
        Node(Resources(cpus=4, gpus=1), {"": others}),
        Node(Resources(cpus=8), {"runs-a1": Resources(cpus=4)}),
    ]


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("waits", Run.PENDING),
        ("runs", Run.RUNNING),
        ("done", Run.ENDED),
        ("dead", Run.ENDED),
        ("never", Run.UNKNOWN),
    ],
)
def test_every_state_of_ray_is_one_of_ours(ray: RayJobs, name: str, run: Run) -> None:
    assert ray.submission(f"{name}-a1").run is run


def test_a_submission_that_is_over_says_how_it_ended(ray: RayJobs) -> None:
    assert ray.submission("runs-a1") == Submission(Run.RUNNING, "02000000")
    assert ray.submission("dead-a1") == Submission(Run.ENDED, None, "it was stopped on the cluster.")
    assert ray.submission("never-a1").end == "the cluster that ran it is gone, or has forgotten it."


def test_an_error_of_ray_says_nothing_about_a_run(ray: RayJobs) -> None:
    assert ray.submission("odd-a1") == Submission(Run.UNCLEAR)


def test_a_submission_that_ray_refuses_is_told_from_one_that_may_succeed_later(ray: RayJobs, tmp_path: Path) -> None:
    with pytest.raises(SubmissionRefusedError, match="no such option"):
        ray.submit("bad-a1", ["true"], tmp_path)
    with pytest.raises(ClusterUnreachableError, match="no such option"):
        ray.submit("new-a1", ["true"], tmp_path)
    for name in ("strange-a1", "early-a1"):  # Ray would not take another job from this token, or now
        with pytest.raises(ClusterUnreachableError, match="no such option"):
            ray.submit(name, ["true"], tmp_path)
    ray.submit("runs-a1", ["true"], tmp_path)  # it is known already
    with pytest.raises(ClusterUnreachableError, match="no such option"):
        ray.submit("odd-a1", ["true"], tmp_path)  # and of this one nobody knows


def test_a_check_names_the_url_that_did_not_answer_with_success(ray: RayJobs) -> None:
    ray.check("/api/version")
    with pytest.raises(ClusterUnreachableError, match=r"/api/nothing answers HTTP 404"):
        ray.check("/api/nothing")


def test_a_server_that_is_no_head_of_ray_is_named(ray: RayJobs) -> None:
    with httpx.Client(trust_env=False) as http, pytest.raises(ClusterUnreachableError, match=r"as a head .*log in"):
        RayJobs(http, f"{ray._url}/login", "token").check_nodes()


def test_a_cluster_is_told_from_another_one_by_the_session_of_its_head(ray: RayJobs) -> None:
    assert ray.session() == "session_1"
    with httpx.Client(trust_env=False) as http, pytest.raises(ClusterUnreachableError, match="which session"):
        RayJobs(http, f"{ray._url}/login", "token").session()


def test_a_head_node_that_is_gone_is_unreachable() -> None:
    with httpx.Client(trust_env=False) as http, pytest.raises(ClusterUnreachableError, match="does not answer"):
        RayJobs(http, "http://127.0.0.1:9", "token").nodes({})
