"""Fixtures for tests in a real browser: the Chromium of this system, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _chromium() -> str:
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    pytest.fail(f"none of {', '.join(_NAMES)} is on the PATH; on Debian or Ubuntu: apt-get install chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a headless Chromium."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_chromium(), args=list(_FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module")  # no longer: while Playwright runs, other tests in this thread cannot run asyncio
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with chromium() as started:
        yield started


@pytest.fixture
def complaints() -> list[str]:
    """What went wrong in the page so far. A test that provokes an error removes it here, and so says that it did."""
    return []


@pytest.fixture
def browser_page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    """An empty page of 1280 by 900 pixels. The test fails on any error in its console or its scripts."""

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(f"console: {message.text} ({message.location.get('url', '')})")

    def fail(error: Error) -> None:
        complaints.append(f"script error: {error}")

    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        ignore_https_errors=True,  # certificates of tests are signed by nobody
    )
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("console", hear)
    page.on("pageerror", fail)
    yield page
    context.close()
    assert not complaints, "\n".join(complaints)
