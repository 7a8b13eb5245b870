"""What the page keeps of a run, and how it stays up to date."""

import math
import threading
from itertools import pairwise
from pathlib import Path

from playwright.sync_api import APIResponse, Page, Request, Route, expect

from tests.server.static.page import begin, expect_cell, fact, open_job, settle, sign_in
from tests.server.writer import Writer, ratio
from tests.serving import Served, serving


def test_the_page_resumes_behind_the_last_record_after_the_server_was_away(
    tmp_path: Path, browser_page: Page, complaints: list[str]
) -> None:
    requests: list[Request] = []

    def note(request: Request) -> None:
        requests.append(request)

    browser_page.on("request", note)
    with serving(tmp_path / "home") as server:
        sign_in(browser_page, server)
        job_id, writer = begin(server, steps=5)
        open_job(server, browser_page, job_id)
        server.push(job_id, writer.steps(6, 8))
        expect(fact(browser_page, "Step")).to_have_text("8 / 100")
        server.parts.bell.close()
    expect(browser_page.locator(".link")).to_have_text("reconnecting…")
    with serving(tmp_path / "home", port=server.settings.port) as server:
        server.push(job_id, writer.steps(9, 12))
        expect(fact(browser_page, "Step")).to_have_text("12 / 100", timeout=20_000)
        expect(browser_page.locator(".link")).to_have_text("live")
        settle(browser_page)
        expect_cell(browser_page, ratio(9, 2), row=2, step=9, last=12)
        streams = [request for request in requests if request.resource_type == "eventsource"]
        assert streams[-1].all_headers()["last-event-id"] == "10"
        browser_page.goto("about:blank")
    complaints[:] = [each for each in complaints if "ERR_" not in each]  # the server was away on purpose


def test_a_late_answer_takes_no_step_back(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    job_id, writer = job
    late: list[tuple[Route, APIResponse]] = []
    asked: list[Route] = []
    is_pushed = threading.Event()

    def hold(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1 or is_pushed.is_set():  # what the page shows at first, and what is not late
            route.continue_()
        else:
            late.append((route, route.fetch()))

    page.route(f"**/v1/jobs/{job_id}", hold)
    open_job(shared, page, job_id)
    while not late:  # the page asks again once its stream has begun
        page.wait_for_timeout(20)
    is_pushed.set()
    shared.push(job_id, writer.steps(11, 12))
    expect(fact(page, "Step")).to_have_text("12 / 100")
    for route, answer in late:
        assert answer.json()["step"] == 10
        with page.expect_event("requestfinished"):
            route.fulfill(response=answer)
    settle(page)
    expect(fact(page, "Step")).to_have_text("12 / 100")


def test_the_page_refuses_a_step_with_another_number_of_ratios_than_tensors(page: Page) -> None:
    take = """async (count) => {
      const { Run } = await import("/static/data/run.js");
      const run = new Run("none");
      run.takeTensors({ set: "s", names: ["a", "b"], adapted: [true, true] });
      run.takeStep({ step: 1, set: "s", trust_ratio: new Float32Array(count).fill(0.5) });
      return [run.ratios.cell(1, 0), run.ratios.cell(1, 1), run.refused?.message ?? null];
    }"""
    assert page.evaluate(take, 2) == [0.5, 0.5, None]
    for count in (0, 1, 3):
        first, second, message = page.evaluate(take, count)
        assert math.isnan(first)
        assert math.isnan(second)
        assert message == f"Step 1 has {count} trust ratios for 2 tensors. They are not drawn."


def test_a_long_run_fits_in_bounded_memory_from_its_first_step_to_its_last(page: Page) -> None:
    thinned = """async () => {
      const { Timeline } = await import("/static/data/timeline.js");
      const line = new Timeline(["last", "last"], 64);
      for (let step = 1; step <= 5000; step++) line.put(step, [step, -step]);
      const steps = [...line.steps.subarray(0, line.length)];
      return { steps, right: steps.every((step, i) => line.at(i, 0) === step && line.at(i, 1) === -step) };
    }"""
    found = page.evaluate(thinned)
    assert found["right"]
    assert found["steps"][-1] == 5000
    gaps = [after - before for before, after in pairwise([0, *found["steps"]])]
    assert 0 < min(gaps) <= max(gaps) == 128  # evenly, in buckets of a power of two
    assert 32 <= len(found["steps"]) <= 64


def test_pooling_hides_no_spike_and_no_value_behind_a_missing_one(page: Page) -> None:
    pooled = """async () => {
      const { Timeline } = await import("/static/data/timeline.js");
      const line = new Timeline(["last", "min", "max"], 64);
      const value = (step) => (step === 777 ? 1e6 : step === 778 ? -1000 : step % 2 ? step : NaN);
      for (let step = 1; step <= 5000; step++) line.put(step, Array(3).fill(value(step)));
      return [line.row(0), line.row(1), line.row(2)].map((row) =>
        ({ missing: row.includes(null), least: Math.min(...row), most: Math.max(...row) }));
    }"""
    last, least, most = page.evaluate(pooled)
    assert not last["missing"]
    assert (least["least"], most["most"]) == (-1000, 1e6)


def test_a_value_that_comes_after_its_step_joins_what_its_column_has(page: Page) -> None:
    amended = """async (steps) => {
      const { Timeline } = await import("/static/data/timeline.js");
      const line = new Timeline(["last", "last", "min", "max"], 8);
      for (let step = 1; step <= steps; step++) line.put(step, [step]);
      for (const [step, value] of [[3, 7], [4, 5], [99, 1]]) for (const row of [1, 2, 3]) line.amend(step, row, value);
      const index = line.find(4);
      return [line.row(0).at(-1), ...[0, 1, 2, 3].map((row) => line.at(index, row))];
    }"""
    assert page.evaluate(amended, 6) == [6, 4, 5, 5, 5]
    assert page.evaluate(amended, 12) == [12, 4, 5, 5, 7]  # steps 3 and 4 share a column
