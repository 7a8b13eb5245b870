import json
from pathlib import Path

import pytest

from server.client.address import find_server
from server.client.errors import AddressError
from server.settings import Settings


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:8201", "http://127.0.0.1:8201"),
        ("localhost:8201", "http://localhost:8201"),
        ("trainer", "http://trainer"),
        ("http://trainer:8000/", "http://trainer:8000"),
        (" https://trainer/bigbatch/ ", "https://trainer/bigbatch"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("http://trainer:8000/jobs/1qx92r16q7na", "http://trainer:8000"),
        ("trainer/v1", "http://trainer"),
        ("trainer:8000/v1/jobs?status=RUNNING", "http://trainer:8000"),
        ("https://trainer/bigbatch/v1/", "https://trainer/bigbatch"),
        ("http://trainer:8000/docs#Job", "http://trainer:8000"),
        ("trainer/openapi.json", "http://trainer"),
        ("trainer/v10/jobsite", "http://trainer/v10/jobsite"),
    ],
)
def test_a_server_is_named_by_host_and_port_by_url_or_by_the_address_of_a_page(
    tmp_path: Path, given: str, url: str
) -> None:
    assert find_server(tmp_path, given).url == url


@pytest.mark.parametrize(
    "given",
    [
        "ftp://trainer",
        "http://",
        "http://trainer:port",
        "http://[::1",
        "a b",
        "trainer:0",
        "",
        "http:/trainer",
        "https:/trainer:1",
        "trainer:",
        "//trainer",
        "http:trainer",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(tmp_path: Path, given: str) -> None:
    with pytest.raises(AddressError, match=r"--url .* is not the address of a server.*write for example") as error:
        find_server(tmp_path, given)
    assert error.value.exit_code == 2


def test_a_password_in_the_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(AddressError, match="give a token with --token") as error:
        find_server(tmp_path, "http://user:hidden@trainer:8000")
    assert "hidden" not in str(error.value)


def test_a_link_brings_its_token_and_a_token_that_is_given_comes_first(tmp_path: Path) -> None:
    link = "http://trainer:8000/?token=of-the-link"
    (tmp_path / "admin.token").write_text("of-the-home\n")
    assert find_server(tmp_path, link).token == "of-the-link"
    assert find_server(tmp_path, link, "given").token == "given"
    assert find_server(tmp_path, "trainer:8000").token == "of-the-home"


def test_a_home_tells_where_its_server_runs(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    assert find_server(tmp_path).url == settings.url
    settings.server_file.write_text(json.dumps({"url": "http://127.0.0.1:9999", "pid": 1}))
    assert find_server(tmp_path).url == "http://127.0.0.1:9999"


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_file_of_the_server_is_named(tmp_path: Path, text: str) -> None:
    Settings(tmp_path).server_file.write_text(text)
    with pytest.raises(AddressError, match=r"server\.json cannot be read: remove it"):
        find_server(tmp_path)


@pytest.mark.parametrize("token", ["tökén", "two words", "a\x00b"])
def test_a_token_that_no_header_can_carry_is_refused_before_it_is_sent(tmp_path: Path, token: str) -> None:
    with pytest.raises(AddressError, match="copy it again"):
        find_server(tmp_path, "trainer", token)


def test_an_address_does_not_show_its_token(tmp_path: Path) -> None:
    assert "secret" not in repr(find_server(tmp_path, "trainer", "secret"))


@pytest.mark.parametrize("url", ["http://\udcc3\udca9:1", "http://a\x7fb:1"])
def test_a_host_that_no_url_can_hold_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(AddressError, match="is not the address of a server"):
        find_server(tmp_path, url)
