"""The matrix of trust ratios: its colours, its rows, and the steps that it shows."""

import re

from playwright.sync_api import Page, expect

from tests.server.http.routes.test_metrics import unpack
from tests.server.static.page import COLOURS, begin, cell, expect_cell, fact, half, open_job, settle
from tests.server.writer import NAMES, Writer, ratio
from tests.serving import Served


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
