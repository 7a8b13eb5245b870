"""Fixtures for tests of the dashboard. All of its files share one browser and one server."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser import browser_page, chromium, complaints
from tests.server.static.page import begin, sign_in
from tests.server.writer import Writer
from tests.serving import Served, serving

__all__ = ["browser_page", "complaints"]  # fixtures


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that look at a job of their own."""
    with serving(tmp_path_factory.mktemp("dashboard") / "home") as server:
        yield server


@pytest.fixture
def page(shared: Served, browser_page: Page) -> Page:
    return sign_in(browser_page, shared)


@pytest.fixture
def empty(served: Served, browser_page: Page) -> Iterator[Page]:
    """The list of a server that has no jobs yet."""
    yield sign_in(browser_page, served)
    browser_page.goto("about:blank")  # ends the stream, so that the server need not wait for it


@pytest.fixture
def job(shared: Served) -> tuple[str, Writer]:
    """A job that has run ten steps."""
    return begin(shared)
