"""The page of a job: what it is, how it fares, and its charts."""

import tarfile
from datetime import UTC, datetime

from playwright.sync_api import Page, expect

from server.jobs.job import Job
from tests.server.http.routes.test_clones import put_checkpoint
from tests.server.http.routes.test_exports import finish
from tests.server.static.page import PHASES, begin, fact, open_job, settle, sign_in
from tests.server.writer import Writer
from tests.serving import Served
from workers.contract.run.folder import RunFolder


def test_a_job_shows_its_history(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    open_job(shared, page, job[0])
    expect(page.get_by_role("heading", name="austen")).to_be_visible()
    expect(page.locator(".status")).to_have_text("running")
    expect(fact(page, "Step")).to_have_text("10 / 100")
    expect(fact(page, "Loss")).to_have_text("7.820")
    expect(fact(page, "Workers")).to_have_text("2")
    expect(page.get_by_text("unigram entropy 6.060")).to_be_visible()
    assert page.locator(".plot canvas").count() == 5


def places_of(page: Page) -> list[object]:
    """Where the buttons and the matrix are."""
    return [each.bounding_box() for each in (*page.get_by_role("button").all(), page.locator(".field"))]


def test_a_job_that_is_not_heard_of_says_since_when_until_it_is_heard_again(browser_page: Page, served: Served) -> None:
    job_id, store = begin(served)[0], served.parts.store
    served.parts.scheduler.stop()
    store.change(job_id, Job.reached)
    open_job(served, sign_in(browser_page, served), job_id)
    silent = browser_page.locator(".silent")
    for width in (1280, 600):
        browser_page.set_viewport_size({"width": width, "height": 900})
        expect(silent).to_be_empty()
        settle(browser_page)  # charts take the window's new width a frame later
        places = [places_of(browser_page)]
        store.change(job_id, lambda job: job.unreachable(datetime(2026, 1, 2, tzinfo=UTC)))
        expect(silent).to_contain_text("Nothing has been heard of this attempt since 2026-01-02")
        places.append(places_of(browser_page))
        store.change(job_id, Job.reached)
        expect(silent).to_be_empty()
        assert places[0] == places[1], "nothing may move away from under the pointer"
    browser_page.goto("about:blank")  # ends the stream, so that the server need not wait for it


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


def test_a_waiting_job_says_what_it_waits_for(page: Page, shared: Served) -> None:
    open_job(shared, page, shared.submit(name="austen")["id"])
    expect(page.get_by_text("waiting for free processors")).to_be_visible()


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


def test_an_unknown_job_is_said_to_be_unknown(page: Page, shared: Served, complaints: list[str]) -> None:
    page.goto(f"{shared.url}/jobs/nowhere")
    expect(page.get_by_role("alert")).to_contain_text("there is no job 'nowhere'")
    complaints.clear()  # the browser reports the 404 that was asked for


def test_events_are_listed_also_those_of_long_ago(page: Page, shared: Served, job: tuple[str, Writer]) -> None:
    job_id, writer = job
    shared.push(job_id, [writer.checkpoint(10), *writer.steps(11, 12)])
    open_job(shared, page, job_id)
    expect(page.locator(".records")).to_contain_text(
        "Checkpoint of step 10: 50.0 MiB in 0.8 s, training stood still for 0.1 s"
    )
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


def test_a_job_is_paused_resumed_saved_cancelled_and_retried_by_buttons(page: Page, shared: Served) -> None:
    job_id = shared.submit()["id"]
    open_job(shared, page, job_id)
    state = page.locator(".headline .status")

    def press(name: str) -> None:
        page.get_by_role("button", name=name, exact=True).click()

    press("Pause")
    expect(state).to_have_text("paused")
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    press("Resume")
    expect(state).to_have_text("queued")
    writer = Writer()
    shared.push(job_id, [*writer.begin(), *writer.steps(1, 3)])
    press("Save checkpoint")
    expect(page.get_by_role("button", name="Saving…")).to_be_disabled()
    shared.push(job_id, [writer.checkpoint(3)])
    expect(page.get_by_role("button", name="Save checkpoint")).to_be_enabled()
    shared.push(job_id, [writer.end("FAILED", error="no disk")])
    expect(page.get_by_role("alert")).to_have_text("no disk")
    expect(page.locator(".link")).to_have_text("ended")
    press("Retry")
    expect(state).to_have_text("queued")
    expect(page.locator(".link")).to_have_text("live")
    expect(page.locator(".error")).to_have_count(0)
