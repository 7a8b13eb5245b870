"""The whole service behind nginx, below a path, as docs/operations.md sets it up."""

import re
import ssl
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from server.client import Client
from tests.browser import browser, browser_page, complaints
from tests.nginx import PAGE, nginx
from tests.server.static.page import begin
from tests.serving import TINY, Served, run_records, serving, step

__all__ = ["browser", "browser_page", "complaints"]  # fixtures


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the options that the page names."""
    (command,) = re.findall(r"(?m)^bigbatch serve (--root-path.*)$", PAGE)
    options = dict(re.findall(r"--([a-z-]+) (\S+)", command))
    home = tmp_path_factory.mktemp("proxy") / "home"
    proxies, hosts = (options["trusted-proxy"],), (options["allowed-host"],)
    with serving(home, root_path=options["root-path"], trusted_proxies=proxies, allowed_hosts=hosts) as server:
        yield server


@pytest.fixture(scope="module", params=[False, True], ids=["the proxy passes the path on", "the proxy removes it"])
def address(request: pytest.FixtureRequest, behind: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where nginx serves the server."""
    folder = tmp_path_factory.mktemp("nginx")
    with pytest.MonkeyPatch.context() as environment, nginx(folder, behind.settings, removes_path=request.param) as url:
        environment.setenv("SSL_CERT_FILE", str(folder / "localhost.crt"))
        yield url


@pytest.fixture
def stranger(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, verify=ssl.create_default_context()) as client:
        yield client


def test_the_client_submits_reads_and_follows_through_the_proxy(address: str, behind: Served) -> None:
    with Client(url=address, token=behind.token) as client:
        assert client.link("/jobs/abc") == f"{address}/jobs/abc?token={behind.token}"
        job_id = client.submit(TINY | {"name": "proxied"})["id"]
        behind.push(job_id, run_records(2))
        assert [event.name for event in client.follow(job_id)][-3:] == ["step", "status", "end"]
        assert [job["id"] for job in client.jobs(name="proxied", limit=1)] == [job_id]


def test_a_record_is_streamed_when_it_is_pushed_and_not_when_a_buffer_is_full(address: str, behind: Served) -> None:
    job_id = behind.submit()["id"]
    with Client(url=address, token=behind.token) as client:
        events = client.events(job_id)
        for number in range(1, 4):
            behind.push(job_id, run_records(3)[:2] if number == 1 else [step(number + 1, number - 1)])
            while next(events).id != number + 1:
                pass
        events.close()  # type: ignore[attr-defined]  # it is a generator


def test_redirects_cookies_and_links_stay_below_the_path(stranger: httpx.Client, behind: Served, address: str) -> None:
    root = behind.settings.root_path
    form = stranger.get("/jobs/abc")
    assert form.status_code == 401
    assert re.findall(r'(?:href|action)="([^"]*)"', form.text) == [
        f"{root}/static/icon.svg",
        f"{root}/static/style.css",
        f"{root}/login",
    ]
    let_in = stranger.get("/jobs/abc", params={"token": behind.token})
    assert (let_in.status_code, let_in.headers["Location"]) == (303, f"{root}/jobs/abc")
    cookie = let_in.headers["Set-Cookie"]
    assert f"; Path={root};" in cookie
    assert cookie.endswith("; Secure")
    origin = {"Origin": address.removesuffix(root)}
    made = stranger.post("/v1/jobs", json=TINY, headers=origin)
    assert (made.status_code, made.headers["Location"]) == (201, f"{root}/v1/jobs/{made.json()['id']}")
    assert stranger.get("/openapi.json").json()["servers"] == [{"url": root}]
    assert f'href="{root}/openapi.json"' in stranger.get("/docs").text
    out = stranger.post("/logout", headers=origin)
    assert (out.status_code, out.headers["Location"], dict(stranger.cookies)) == (303, f"{root}/", {})


def test_only_the_host_names_that_are_allowed_are_answered(stranger: httpx.Client) -> None:
    answers = [stranger.get("/healthz", headers={"Host": host}) for host in ("trainer.example:8443", "evil.example")]
    assert [answer.status_code for answer in answers] == [200, 400]


def test_the_page_logs_in_shows_a_job_live_and_logs_out(
    browser_page: Page, address: str, behind: Served, complaints: list[str]
) -> None:
    job_id, writer = begin(behind)
    browser_page.goto(f"{address}/jobs/{job_id}")
    browser_page.get_by_label("Token").fill(behind.token)
    browser_page.get_by_role("button", name="Open").click()
    expect(browser_page).to_have_url(f"{address}/jobs/{job_id}")
    expect(browser_page.locator(".link")).to_have_text("live")
    expect(browser_page.locator(".fact").first).to_contain_text("10 / 100")
    behind.push(job_id, writer.steps(11, 20))
    expect(browser_page.locator(".fact").first).to_contain_text("20 / 100")
    expect(browser_page.locator(".name")).to_have_count(5)
    browser_page.get_by_role("button", name="Pause").click()
    expect(browser_page.locator(".headline .status")).to_have_text("pausing")
    browser_page.get_by_role("link", name="bigbatch").click()
    expect(browser_page).to_have_url(f"{address}/")
    browser_page.get_by_role("link", name="austen").first.click()
    expect(browser_page).to_have_url(re.compile(f"^{address}/jobs/"))
    browser_page.get_by_role("button", name="Log out").click()
    expect(browser_page.get_by_label("Token")).to_be_visible()
    expect(browser_page).to_have_url(f"{address}/")
    assert [each for each in complaints if "401" not in each] == []  # those are of the form
    complaints.clear()
