"""One trust ratio on its whole way: the optimizer computes it, and it has its colour in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from playwright.sync_api import Page, expect
from torch._C._distributed_c10d import HashStore

from optim import Lamb
from tests.browser import browser, browser_page, complaints
from tests.server.static.page import cell, expect_cell, fact, half, open_job, settle, sign_in
from tests.serving import Served
from workers.contract.run.folder import RunFolder
from workers.training.reporting import telemetry
from workers.training.reporting.clock import StepClock
from workers.training.reporting.reporter import Reporter
from workers.training.reporting.telemetry import Sums, Telemetry
from workers.training.safety.health import Health
from workers.training.safety.signals import StopRequest

__all__ = ["browser", "browser_page", "complaints"]  # fixtures

CPU = torch.device("cpu")
WEIGHTS = {"first": 0.5, "second": 0.123, "third": 0.25}
"""One number a tensor. Its gradient is 1 and so is its update, so its trust ratio is the number itself."""
GRADIENTS = [("first", "second"), ("second",), ("second", "third"), ("first", "third"), ("first", "second", "third")]
"""The tensors that have a gradient, step by step."""


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def train(folder: Path) -> None:
    """Take the steps of GRADIENTS and report them in one flush, as a training loop does."""
    tensors = {name: torch.nn.Parameter(torch.tensor([weight])) for name, weight in WEIGHTS.items()}
    optimizer = Lamb(tensors.items(), lr=0.0, weight_decay=0.0)
    reporter = Reporter(RunFolder(folder))
    collected = Telemetry(optimizer, CPU, reporter, 1, Health(), StopRequest(), StepClock(CPU, 1))
    sums = torch.tensor(Sums(7.0, 7.0, 1.0, 10.0, 10.0, 100.0, 10.0, 10.0), dtype=torch.float64)
    for number, names in enumerate(GRADIENTS, start=1):
        for name, tensor in tensors.items():
            tensor.grad = torch.ones(1) if name in names else None
        optimizer.step()
        collected.record(number, 0, 0.0, sums, flush=number == len(GRADIENTS))
    reporter.close()


def expect_matrix(page: Page, *, rounded: bool) -> None:
    expect(fact(page, "Step")).to_have_text(f"{len(GRADIENTS)} / 20")
    expect(page.locator(".name")).to_have_text(list(WEIGHTS))
    settle(page)
    for row, (name, weight) in enumerate(WEIGHTS.items()):
        for step, names in enumerate(GRADIENTS, start=1):
            if name in names:
                expect_cell(page, half(weight) if rounded else weight, row, step, last=len(GRADIENTS))
            else:
                assert cell(page, row, step, last=len(GRADIENTS))[3] == 0, (name, step)


def test_a_ratio_keeps_its_tensor_and_its_value_while_tensors_come_and_go(
    served: Served, browser_page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(telemetry._STEPS_PER_FLUSH, "cpu", len(GRADIENTS))
    sign_in(browser_page, served)
    job_id = served.submit()["id"]
    open_job(served, browser_page, job_id)
    train(served.settings.run_folder(job_id))
    expect_matrix(browser_page, rounded=False)
    browser_page.locator(".field").focus()
    for key in ["ArrowDown", "ArrowDown", "ArrowLeft", "ArrowLeft"]:
        browser_page.keyboard.press(key)
    expect(browser_page.locator(".field-column [role=status]")).to_have_text("second, step 3: 0.123")
    browser_page.reload()
    expect_matrix(browser_page, rounded=True)
    browser_page.goto("about:blank")
