"""The dashboard in a real browser, on a real server, fed through the real ingest route."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import APIResponse, Page, Request, Route, expect

from tests.browser import browser, browser_page, complaints
from tests.server.http.routes.test_clones import put_checkpoint
from tests.server.http.routes.test_exports import finish
from tests.server.http.routes.test_metrics import unpack
from tests.server.writer import NAMES, Writer, ratio
from tests.serving import Served, serving
from workers.contract.files import write_private
from workers.contract.run.folder import RunFolder

__all__ = ["browser", "browser_page", "complaints"]  # fixtures

VENDOR = Path(__file__).parents[2] / "server" / "static" / "vendor"

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


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that look at a job of their own."""
    with serving(tmp_path_factory.mktemp("dashboard") / "home") as server:
        yield server


def sign_in(page: Page, server: Served) -> Page:
    page.goto(f"{server.url}/?token={server.token}")
    return page


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


def test_a_branch_links_to_the_job_that_it_goes_on_from_and_says_at_which_step(shared: Served, page: Page) -> None:
    parent = shared.submit()
    put_checkpoint(RunFolder(shared.settings.run_folder(parent["id"])), 4)
    clone = shared.http.post(f"/v1/jobs/{parent['id']}/clone", json={"from_step": 4}).json()
    writer = Writer()
    shared.push(clone["id"], [*writer.begin(), *writer.steps(5, 8)])
    open_job(shared, page, clone["id"])
    expect(page.locator(".facts")).to_contain_text("8 / 20")
    expect(page.locator("canvas.cells")).to_be_visible()
    expect(fact(page, "Branch of")).to_have_text(f"{parent['id']} at step 4")
    fact(page, "Branch of").get_by_role("link").click()
    expect(page.locator(".headline code")).to_have_text(parent["id"])


def test_vendored_files_are_those_of_the_manifest() -> None:
    manifest = json.loads((VENDOR / "manifest.json").read_text())
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    del hashes["manifest.json"]
    assert hashes == {name: entry["sha256"] for name, entry in manifest.items()}


def test_every_vendored_package_brings_its_licence() -> None:
    manifest = json.loads((VENDOR / "manifest.json").read_text())
    packages = {entry["package"] for entry in manifest.values()}
    assert {f"LICENSE.{package}" for package in packages} <= set(manifest)


def test_an_empty_list_shows_how_to_submit(empty: Page, served: Served) -> None:
    expect(empty.get_by_role("heading", name="No jobs yet")).to_be_visible()
    expect(empty.get_by_text(f"configs/demo.yaml --home {served.settings.home}")).to_be_visible()
    expect(empty.get_by_text(f"curl {served.url}/v1/jobs")).to_be_visible()


def test_the_commands_of_the_empty_list_work_in_any_folder(empty: Page, served: Served, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    write_private(served.settings.server_file, json.dumps({"url": served.url, "pid": os.getpid()}))  # as serve does
    expect(empty.locator(".snippet")).to_have_count(2)
    commands = empty.locator(".snippet code").all_text_contents()
    assert [command.split()[0] for command in commands] == ["bigbatch", "curl"]
    for command in commands:
        submitted = subprocess.run(
            ["/bin/sh", "-c", f"{command} --fail" if command.startswith("curl") else command],
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "NO_PROXY": "*"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert submitted.returncode == 0, submitted.stderr
    assert len(served.http.get("/v1/jobs").json()["jobs"]) == 2


def test_copying_works_where_the_browser_offers_no_clipboard(empty: Page) -> None:
    empty.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    empty.reload()
    empty.get_by_role("button", name="Copy").first.click()
    expect(empty.locator(".snippet button").first).to_have_text(re.compile("Copied|Selected"))
    assert empty.evaluate("String(getSelection())") == empty.locator(".snippet code").first.text_content()


def test_the_list_follows_its_jobs_without_a_reload(empty: Page, served: Served) -> None:
    expect(empty.get_by_role("heading", name="No jobs yet")).to_be_visible()
    job_id, _ = begin(served, steps=7)
    row = empty.get_by_role("row").filter(has_text="austen")
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("7 / 100")
    expect(row).to_contain_text("8.114")
    served.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    expect(row).to_contain_text("stopping")
    row.get_by_role("link", name="austen").click()
    expect(empty).to_have_url(f"{served.url}/jobs/{job_id}")


def test_older_jobs_come_on_demand(empty: Page, served: Served) -> None:
    for number in range(101):
        served.submit(name=f"job-{number}")
    empty.reload()
    expect(empty.locator(".jobs tbody tr")).to_have_count(100)
    empty.get_by_role("button", name="Older jobs").click()
    expect(empty.locator(".jobs tbody tr")).to_have_count(101)
    expect(empty.get_by_role("button", name="Older jobs")).to_be_hidden()


def test_a_job_shows_its_history(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    open_job(shared, page, job[0])
    expect(page.get_by_role("heading", name="austen")).to_be_visible()
    expect(page.locator(".status")).to_have_text("running")
    expect(fact(page, "Step")).to_have_text("10 / 100")
    expect(fact(page, "Loss")).to_have_text("7.820")
    expect(fact(page, "Workers")).to_have_text("2")
    expect(page.get_by_text("unigram entropy 6.060")).to_be_visible()
    assert page.locator(".plot canvas").count() == 5


def test_a_job_that_ended_says_where_its_model_lies_and_gives_it_as_an_archive(
    page: Page, shared: Served, job: tuple[str, Writer]
) -> None:
    job_id, writer = job
    folder = RunFolder(shared.settings.run_folder(job_id)).export
    open_job(shared, page, job_id)
    expect(page.locator(".model")).to_have_count(0)
    finish(folder)
    shared.push(job_id, [writer.end("SUCCEEDED", export_path=str(folder))])
    expect(page.locator(".model code")).to_have_text(str(folder))
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").click()
    with tarfile.open(started.value.path()) as archive:
        assert "austen/config.json" in archive.getnames()


def test_held_out_figures_are_shown_and_drawn_as_they_come(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    job_id, writer = job
    open_job(shared, page, job_id)
    expect(page.locator(".fact").filter(has_text="Held-out")).to_have_count(0)
    shared.push(job_id, [writer.evaluation(10), *writer.steps(11, 20), writer.evaluation(20, mlm_accuracy=0.25)])
    for _ in range(2):  # as it arrives, and as it is read again
        expect(fact(page, "Held-out accuracy")).to_have_text("25.0 %")
        expect(fact(page, "Held-out loss")).to_have_text("6.500")
        expect(page.locator(".key.line-held-out")).to_have_count(2)
        expect(page.locator(".records")).to_contain_text(
            "Held-out text after step 20: 25.0 % of the masked words are right"
        )
        settle(page)
        assert dots(page, "Loss over steps") > 0
        assert dots(page, "Masked accuracy over steps") > 0
        page.reload()


def dots(page: Page, chart: str) -> int:
    """Count the pixels of a chart that have the colour of held-out text."""
    count: int = page.evaluate(
        """(name) => {
          const canvas = document.querySelector(`[aria-label="${name}"] canvas`);
          const ink = getComputedStyle(document.documentElement).getPropertyValue("--line-held-out").trim();
          const wanted = [1, 3, 5].map((at) => parseInt(ink.slice(at, at + 2), 16));
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let count = 0;
          for (let at = 0; at < data.length; at += 4) count += wanted.every((part, i) => data[at + i] === part);
          return count;
        }""",
        chart,
    )
    return count


def test_nothing_is_promised_before_there_is_a_record_of_it(page: Page, shared: Served) -> None:
    job_id = shared.submit(name="austen", phases=PHASES)["id"]
    open_job(shared, page, job_id)
    sections = page.locator("section.charts, section.matrix, section:has(.records)")
    expect(sections).to_have_count(0)
    writer = Writer()
    shared.push(job_id, [*writer.begin(), writer.step(1)])
    expect(sections).to_have_count(3)
    expect(page.locator(".legend .mark")).to_have_count(0)
    shared.push(job_id, [writer.step(2, skipped=True), writer.checkpoint(2)])
    expect(page.locator(".legend .mark")).to_have_text(["skipped", "checkpoint"])


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


def test_a_waiting_job_says_what_it_waits_for(page: Page, shared: Served) -> None:
    open_job(shared, page, shared.submit(name="austen")["id"])
    expect(page.get_by_text("waiting for free processors")).to_be_visible()


def test_the_matrix_has_the_colours_of_its_ratios(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    open_job(shared, page, job[0])
    settle(page)
    for row, step in [(0, 1), (2, 5), (4, 10)]:
        expect_cell(page, half(ratio(step, row)), row, step, last=10)
    assert page.evaluate(COLOURS) > 20


def test_tensors_that_are_not_adapted_have_no_colour_of_the_scale(
    page: Page, shared: Served, job: tuple[str, Writer]
) -> None:
    open_job(shared, page, job[0])
    settle(page)
    table = page.evaluate("async () => (await import('/static/ui/scales.js')).TABLE")
    still = cell(page, row=1, step=3, last=10)
    assert still[3] == 255
    assert still[:3] not in table
    assert cell(page, row=3, step=9, last=10) == still


def test_a_new_step_becomes_a_new_column(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    job_id, writer = job
    open_job(shared, page, job_id)
    before = page.evaluate(COLOURS)
    shared.push(job_id, [writer.step(11, [0.9, 1.0, 0.033, 1.0, 0.5])])
    expect(fact(page, "Step")).to_have_text("11 / 100")
    settle(page)
    expect_cell(page, 0.033, row=2, step=11, last=11)
    expect_cell(page, half(ratio(10, 2)), row=2, step=10, last=11)
    assert page.evaluate(COLOURS) > before


def test_a_step_that_comes_twice_replaces_its_column(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    job_id, writer = job
    open_job(shared, page, job_id)
    shared.push(job_id, [writer.step(4, [0.5, 1.0, 0.25, 1.0, 0.5]), writer.alert("again")])
    expect(page.locator(".records")).to_contain_text("again")
    settle(page)
    expect_cell(page, 0.25, row=2, step=4, last=10)
    expect_cell(page, half(ratio(5, 2)), row=2, step=5, last=10)


def test_a_skipped_step_is_marked_and_has_no_colour(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    job_id, writer = job
    shared.push(job_id, [writer.step(11, skipped=True), *writer.steps(12, 15)])
    open_job(shared, page, job_id)
    settle(page)
    assert cell(page, row=0, step=11, last=15)[3] == 0
    mark = "canvas => [...canvas.getContext('2d').getImageData(10.5 / 15 * canvas.width, 1, 1, 1).data]"
    assert page.locator("canvas.cells").evaluate(mark)[3] == 255
    page.locator(".field").focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    expect(page.locator(".tip")).to_contain_text("step skipped")


def test_the_pointer_reads_a_cell(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    open_job(shared, page, job[0])
    page.locator(".field").hover(position={"x": 5, "y": 12})
    expect(page.locator(".tip")).to_contain_text("bert.embeddings.word_embeddings.weight")
    expect(page.locator(".tip")).to_contain_text("step 1 ratio 0.0220")
    expect(page.locator(".chart").filter(has_text="Loss").locator("output")).to_have_text("8.854")


def test_a_row_draws_its_tensor(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    open_job(shared, page, job[0])
    page.locator(".field").click(position={"x": 50, "y": 12})
    chart = page.locator(".matrix .chart")
    expect(chart.locator(".title")).to_have_text(NAMES[0])
    page.mouse.move(0, 0)
    expect(chart.locator("output")).to_have_text("0.0400")


def test_the_keyboard_reaches_every_row(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    open_job(shared, page, job[0])
    page.locator(".field").focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(page.locator(".field-column [role=status]")).to_have_text(f"{NAMES[2]}, step 10: 0.120")
    page.keyboard.press("Enter")
    expect(page.locator(".matrix .chart .title")).to_have_text(NAMES[2])
    page.keyboard.press("Escape")
    expect(page.locator(".matrix .chart")).to_be_hidden()


def test_the_filter_leaves_the_rows_that_match(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    open_job(shared, page, job[0])
    page.get_by_label("Filter").fill("layer query")
    expect(page.locator(".name")).to_have_text(["attention.self.query", "attention.self.query.bias"])
    page.get_by_label("adapted only").check()
    expect(page.locator(".name")).to_have_text(["attention.self.query"])
    settle(page)
    expect_cell(page, half(ratio(2, 2)), row=0, step=2, last=10)


def test_dragging_across_steps_zooms_into_all_charts(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    open_job(shared, page, job[0])
    field = page.locator(".field")
    box = field.bounding_box()
    assert box is not None
    slot = box["width"] / 10
    page.mouse.move(box["x"] + 2.5 * slot, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 3.5 * slot, box["y"] + 20)
    page.mouse.move(box["x"] + 5.5 * slot, box["y"] + 20)
    page.mouse.up()
    zoom = page.get_by_role("button", name="Steps 3 to 6")
    expect(zoom).to_be_visible()
    expect(page.locator(".steps span")).to_have_text(["3", "4", "5", "6"])
    zoom.click()
    expect(page.locator(".steps span")).to_have_text(["2", "4", "6", "8", "10"])


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

    def hold(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:  # what the page shows at first
            route.continue_()
        else:
            late.append((route, route.fetch()))

    page.route(f"**/v1/jobs/{job_id}", hold)
    open_job(shared, page, job_id)
    while not late:  # the stream is open before the page asks again
        page.wait_for_timeout(20)
    shared.push(job_id, writer.steps(11, 12))
    expect(fact(page, "Step")).to_have_text("12 / 100")
    for route, answer in late:
        assert answer.json()["step"] == 10
        with page.expect_event("requestfinished"):
            route.fulfill(response=answer)
    settle(page)
    expect(fact(page, "Step")).to_have_text("12 / 100")


def test_events_are_listed_also_those_of_long_ago(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    job_id, writer = job
    shared.push(job_id, [writer.checkpoint(10), *writer.steps(11, 12)])
    open_job(shared, page, job_id)
    expect(page.locator(".records")).to_contain_text("Checkpoint of step 10: 50.0 MiB in 0.8 s")
    shared.push(job_id, [writer.alert("The loss rises")])
    expect(page.locator(".records li").first).to_contain_text("The loss rises")


def test_the_path_of_a_checkpoint_is_shown_until_it_is_removed(
    page: Page, shared: Served, job: tuple[str, Writer]
) -> None:
    job_id, writer = job
    shared.push(job_id, [writer.checkpoint(10), writer.checkpoint(20, kept=[10, 20])])
    open_job(shared, page, job_id)
    paths = page.locator(".records li[data-kind=checkpoint] small")
    expect(paths).to_have_text(["checkpoints/20", "checkpoints/10"])
    shared.push(job_id, [writer.checkpoint(30, kept=[20, 30])])
    expect(paths).to_have_text(["checkpoints/30", "checkpoints/20", "removed since then"])


def test_a_failed_job_says_why_and_its_stream_ends(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    job_id, writer = job
    open_job(shared, page, job_id)
    shared.push(job_id, [writer.end("FAILED", "rank 1 ran out of memory; lower micro_batch_size")])
    expect(page.locator(".status")).to_have_text("failed")
    expect(page.locator(".error")).to_have_text("rank 1 ran out of memory; lower micro_batch_size")
    expect(page.locator(".link")).to_have_text("ended")
    expect(page.get_by_role("button", name="Cancel job…")).to_be_hidden()


def test_cancelling_asks_first(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    open_job(shared, page, job[0])
    page.get_by_role("button", name="Cancel job…").click()
    page.get_by_role("button", name="Keep running").click()
    expect(page.locator(".status")).to_have_text("running")
    page.get_by_role("button", name="Cancel job…").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()
    expect(page.locator(".status")).to_have_text("stopping")


@pytest.mark.parametrize("width", [400, 1280, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_its_window(
    page: Page, shared: Served, job: tuple[str, Writer], width: int, scheme: Any
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    open_job(shared, page, job[0])
    settle(page)
    too_wide = "() => document.scrollingElement.scrollWidth - innerWidth"
    assert page.evaluate(too_wide) <= 0
    page.goto(shared.url)
    expect(page.get_by_role("row").filter(has_text=job[0])).to_be_visible()
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


def test_a_step_that_nobody_reported_is_drawn_as_missing(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    job_id, writer = job
    shared.push(job_id, writer.steps(13, 15))
    open_job(shared, page, job_id)
    settle(page)
    for step in (11, 12):
        assert cell(page, row=0, step=step, last=15)[3] == 0
    expect_cell(page, half(ratio(13, 0)), row=0, step=13, last=15)
    shared.push(job_id, [writer.step(12, [0.5, 1.0, 0.25, 1.0, 0.5]), writer.alert("again")])
    expect(page.locator(".records")).to_contain_text("again")
    settle(page)
    expect_cell(page, 0.25, row=2, step=12, last=15)


def test_the_rooms_of_the_page_need_only_those_below_them() -> None:
    below = {"ui": {"ui"}, "data": {"ui", "data"}, "charts": {"ui", "data", "charts"}}
    below |= {"matrix": {"ui", "data", "matrix"}, "pages": {"ui", "data", "charts", "matrix", "pages"}}
    for room, allowed in below.items():
        files = list((VENDOR.parent / room).glob("*.js"))
        assert files
        for file in files:
            needed = re.findall(r'from "(\.{1,2})/(?:(\w+)/)?[\w-]+\.js"', file.read_text())
            assert {folder or room for _, folder in needed} <= allowed | {"vendor"}, file.name


def test_an_unknown_job_is_said_to_be_unknown(page: Page, shared: Served, complaints: list[str]) -> None:
    page.goto(f"{shared.url}/jobs/nowhere")
    expect(page.get_by_role("alert")).to_contain_text("there is no job 'nowhere'")
    complaints.clear()  # the browser reports the 404 that was asked for


def test_zooming_into_a_long_run_fetches_the_steps_that_were_pooled(page: Page, shared: Served) -> None:
    job_id, writer = begin(shared)
    shared.push(job_id, writer.steps(2901, 3000))
    open_job(shared, page, job_id)
    field = page.locator(".field")
    box = field.bounding_box()
    assert box is not None
    right = box["x"] + box["width"]
    with page.expect_response(re.compile("trust-ratios.*from=")) as response:
        page.mouse.move(right - 15, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(right - 10, box["y"] + 20)
        page.mouse.move(right - 5, box["y"] + 20)
        page.mouse.up()
    steps = unpack(response.value.body())[0]["steps"]
    first, last = steps[0], steps[-1]
    assert last - first > 10
    expect(page.get_by_role("button", name=f"Steps {first} to {last}")).to_be_visible()
    expect(field).to_have_attribute("aria-busy", "false")
    settle(page)
    for step in range(first, last + 1):
        expect_cell(page, half(ratio(step, 2)), row=2, step=step, first=first, last=last)
