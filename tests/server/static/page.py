"""The dashboard as tests look at it: in a real browser, on a real server, fed through the real ingest route."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, expect

from tests.server.writer import Writer
from tests.serving import Served

STATIC = Path(__file__).parents[3] / "server" / "static"
# The pixel of a cell: middle of a step's slot, middle of a row. The strip of marks above is 8 pixels high.
CELL = """([row, step, first, last]) => {
  const canvas = document.querySelector("canvas.cells");
  const rows = document.querySelectorAll(".name").length;
  const x = Math.floor((step - first + 0.5) / (last - first + 1) * canvas.width);
  const y = Math.floor(8 + (row + 0.5) * (canvas.height - 8) / rows);
  return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
}"""
# The colour that the table has for a ratio on the scale which the page shows.
EXPECTED = """async (ratio) => {
  const { LogScale, TABLE } = await import("/static/ui/scales.js");
  const [low, high] = document.querySelector(".ramp canvas").ariaLabel.match(/[\\d.]+/g).map(Number);
  return [...TABLE[new LogScale([low, high]).index(ratio)], 255];
}"""
PHASES = [{"seq_len": 64, "global_batch_size": 8, "micro_batch_size": 4, "steps": 100, "lr": 0.01}]
COLOURS = """() => {
  const canvas = document.querySelector("canvas.cells");
  const { data } = canvas.getContext("2d").getImageData(0, 8, canvas.width, canvas.height - 8);
  return new Set(new Uint32Array(data.buffer)).size;
}"""


def sign_in(page: Page, server: Served) -> Page:
    page.goto(f"{server.url}/?token={server.token}")
    return page


def begin(server: Served, steps: int = 10) -> tuple[str, Writer]:
    writer, job_id = Writer(), str(server.submit(name="austen", phases=PHASES)["id"])
    server.push(job_id, [*writer.begin(), *writer.steps(1, steps)])
    return job_id, writer


def open_job(server: Served, page: Page, job_id: str) -> None:
    page.goto(f"{server.url}/jobs/{job_id}")
    expect(page.locator(".link")).to_have_text(re.compile("live|ended"))


def fact(page: Page, name: str) -> Any:
    return page.locator(".fact").filter(has_text=name).locator("dd")


def cell(page: Page, row: int, step: int, last: int, first: int = 1) -> list[int]:
    return list(page.evaluate(CELL, [row, step, first, last]))


def expect_cell(page: Page, ratio: float, row: int, step: int, last: int, first: int = 1) -> None:
    assert cell(page, row, step, last, first) == page.evaluate(EXPECTED, ratio)


def half(value: float) -> float:
    """The value as a history brings it, in half precision."""
    return float(np.float16(value))


def settle(page: Page) -> None:
    """Wait until what arrived is drawn: a frame to take it up, a frame to paint it."""
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
    )
