"""How a browser gets in and out."""

from playwright.sync_api import Page, expect

from tests.server.static.page import sign_in
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
