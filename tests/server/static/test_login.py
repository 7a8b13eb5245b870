"""How a browser gets in and out."""

import pytest
from playwright.sync_api import Page, expect

from server.http.access import lasting
from tests.server.static.page import begin, fact, open_job, sign_in
from tests.serving import Served


def test_a_browser_logs_in_by_the_form_and_out_by_the_button(
    browser_page: Page, served: Served, complaints: list[str]
) -> None:
    browser_page.goto(f"{served.url}/jobs/abc")
    browser_page.get_by_label("Token").fill("wrong")
    browser_page.get_by_role("button", name="Open").click()
    expect(browser_page.get_by_role("alert")).to_contain_text("is not a token of this server")
    browser_page.get_by_label("Token").fill(served.token)
    browser_page.get_by_role("button", name="Open").click()
    expect(browser_page).to_have_url(f"{served.url}/jobs/abc")
    browser_page.get_by_role("button", name="Log out").click()
    expect(browser_page.get_by_label("Token")).to_be_visible()
    browser_page.go_back()
    browser_page.reload()
    expect(browser_page.get_by_label("Token")).to_be_visible()
    assert all("401" in each or "404" in each for each in complaints)  # the form, and a job that is not there
    complaints.clear()


def test_no_script_of_a_page_reads_the_session(browser_page: Page, served: Served) -> None:
    sign_in(browser_page, served)
    expect(browser_page.get_by_role("button", name="Log out")).to_be_visible()
    assert browser_page.evaluate("document.cookie") == ""
    (cookie,) = browser_page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert served.token not in browser_page.url + str(cookie)
    browser_page.goto("about:blank")  # ends the stream, so that the server need not wait for it


def test_pages_whose_session_ended_elsewhere_say_how_to_sign_in(
    browser_page: Page, served: Served, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lasting, "CHECK_S", 0.0)
    job_id, writer = begin(served)
    jobs, job = sign_in(browser_page, served), browser_page.context.new_page()
    expect(jobs.get_by_role("link", name="austen")).to_be_visible()
    open_job(served, job, job_id)
    browser_page.context.request.post(f"{served.url}/logout", headers={"Origin": served.url})
    served.push(job_id, writer.steps(11, 12))  # the streams look who reads them before they send anything
    for each in (jobs, job):
        expect(each.get_by_role("alert")).to_contain_text("it signs this browser in")
    expect(job.locator(".link")).to_have_text("not connected")
    expect(fact(job, "Step")).to_have_text("10 / 100")
    assert all("401" in each for each in complaints)
    complaints.clear()
