"""The list of jobs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.server.static.page import begin
from tests.serving import Served
from workers.contract.files import write_private


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


def test_a_job_that_is_deleted_leaves_the_list(empty: Page, served: Served) -> None:
    job_id = served.submit(name="austen")["id"]
    expect(empty.get_by_role("row").filter(has_text="austen")).to_be_visible()
    served.http.post(f"/v1/jobs/{job_id}/pause").raise_for_status()
    served.http.delete(f"/v1/jobs/{job_id}").raise_for_status()
    expect(empty.get_by_role("heading", name="No jobs yet")).to_be_visible()


def test_older_jobs_come_on_demand(empty: Page, served: Served) -> None:
    for number in range(101):
        served.submit(name=f"job-{number}")
    empty.reload()
    expect(empty.locator(".jobs tbody tr")).to_have_count(100)
    empty.get_by_role("button", name="Older jobs").click()
    expect(empty.locator(".jobs tbody tr")).to_have_count(101)
    expect(empty.get_by_role("button", name="Older jobs")).to_be_hidden()
