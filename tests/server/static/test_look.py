"""How the pages look: no wider than the window, and legible."""

from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.server.static.page import open_job, settle
from tests.server.writer import Writer
from tests.serving import Served


@pytest.mark.parametrize("width", [400, 1200, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_its_window_and_no_caption_is_cut(
    page: Page, shared: Served, job: tuple[str, Writer], width: int, scheme: Any
) -> None:
    job_id, writer = job
    shared.push(job_id, [writer.evaluation(10)])  # one more key in the captions
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    open_job(shared, page, job_id)
    settle(page)
    too_wide = "() => document.scrollingElement.scrollWidth - innerWidth"
    assert page.evaluate(too_wide) <= 0
    cut = "all => all.filter(each => each.scrollWidth > each.clientWidth).map(each => each.textContent)"
    captions = page.locator(".charts figcaption, .charts .title")
    expect(captions).to_have_count(12)
    assert captions.evaluate_all(cut) == []
    page.goto(shared.url)
    expect(page.get_by_role("row").filter(has_text=job_id)).to_be_visible()
    assert page.evaluate(too_wide) <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_it_stands_on(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    contrast = """() => {
      const probe = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      const luminance = (name) => {
        probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--" + name);
        probe.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...probe.getImageData(0, 0, 1, 1).data].map((c) =>
          c <= 10 ? c / 3294 : ((c / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const inks = ["text", "muted", "accent", "good", "warn", "bad"];
      return inks.flatMap((ink) => ["panel", "page", "sunk"].map((ground) =>
        [`${ink} on ${ground}`, ratio(luminance(ink), luminance(ground))]));
    }"""
    too_faint = [(name, ratio) for name, ratio in page.evaluate(contrast) if ratio < 4.5]
    assert not too_faint


def test_the_colour_table_rises_in_lightness_throughout(page: Page) -> None:
    luminance = """async () => (await import("/static/ui/scales.js")).TABLE.map((channels) => {
      const [r, g, b] = channels.map((c) => (c <= 10 ? c / 3294 : ((c / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    })"""
    values = page.evaluate(luminance)
    assert len(values) == 256
    assert all(before < after for before, after in pairwise(values))
