from pathlib import Path

import pytest

from server.client.connection import Connection
from server.client.errors import RefusedError, TokenRefusedError, UnreachableError
from server.client.results import Job, JobPage
from tests.serving import Served, free_port


def test_what_a_server_answers_is_returned_and_what_it_refuses_is_raised(served: Served) -> None:
    connection = Connection(served.settings.home, served.url, None)
    assert connection.ask(JobPage, "GET", "/v1/jobs")["jobs"] == []
    with pytest.raises(RefusedError, match="there is no job") as refusal:
        connection.ask(Job, "GET", "/v1/jobs/none")
    assert refusal.value.problem["type"] == "urn:bigbatch:problem:job-not-found"
    with pytest.raises(RefusedError, match="is it a bigbatch server"):
        connection.ask(Job, "GET", "/")  # a page
    connection.close()


def test_a_stream_is_read_as_it_comes_or_refused_before_it_begins(served: Served) -> None:
    connection = Connection(served.settings.home, served.url, None)
    with connection.stream("/v1/events") as answer:
        assert next(answer.iter_text()).startswith(":")
    with pytest.raises(RefusedError, match="there is no job"), connection.stream("/v1/jobs/none/events"):
        pass
    connection.close()


def test_a_wrong_token_and_a_server_that_is_not_there_are_told_apart(served: Served, tmp_path: Path) -> None:
    stranger = Connection(tmp_path, served.url, "wrong")
    with pytest.raises(TokenRefusedError, match="does not accept the token given with --token"):
        stranger.send("GET", "/v1/jobs")
    stranger.close()
    nobody = Connection(tmp_path, f"http://127.0.0.1:{free_port()}", "token")
    with pytest.raises(UnreachableError, match="no bigbatch server answers"), nobody.stream("/v1/events"):
        pass
    nobody.close()
