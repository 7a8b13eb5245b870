"""Real processes that get real signals."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

PROGRAM = """
import sys, time
from workers.training.safety.signals import InterruptedBeforeTrainingError, stop_on_signals
with stop_on_signals() as stop:
    try:
        print("preparing", flush=True)
        while "prepare" in sys.argv: time.sleep(0.01)
        with stop.while_training():
            print("training", flush=True)
            while not stop.is_asked: time.sleep(0.01)
            print("saving", flush=True)
            while "save" in sys.argv: time.sleep(0.01)
            if "hang" in sys.argv:
                import ctypes
                ctypes.PyDLL(None).sleep(600)  # holds the interpreter, as C code that never returns
    except InterruptedBeforeTrainingError as interruption:
        print("interrupted by", interruption, flush=True)
sys.exit(stop.exit_code)
"""


class Process:
    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def wait_for(self, line: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == line + "\n"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def exit_code(self) -> int:
        return self._process.wait(timeout=20)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process(*arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_while_training_the_first_signal_is_a_request(
    number: signal.Signals, code: int, start: Callable[..., Process]
) -> None:
    process = start()
    process.wait_for("preparing")
    process.wait_for("training")
    process.send(number)
    process.wait_for("saving")
    assert process.exit_code() == code


def test_before_training_it_ends_the_process_at_once(start: Callable[..., Process]) -> None:
    process = start("prepare")
    process.wait_for("preparing")
    process.send(signal.SIGTERM)
    process.wait_for("interrupted by SIGTERM")
    assert process.exit_code() == 143


@pytest.mark.parametrize("state", ["save", "hang"])
def test_a_second_ctrl_c_ends_the_process_at_once_whatever_it_does(state: str, start: Callable[..., Process]) -> None:
    process = start(state)
    process.wait_for("preparing")
    process.wait_for("training")
    process.send(signal.SIGINT)
    process.wait_for("saving")
    time.sleep(0.6)  # a person presses the keys again
    process.send(signal.SIGINT)
    assert process.exit_code() == 130


def test_one_ctrl_c_that_arrives_twice_is_one_request(start: Callable[..., Process]) -> None:
    """As at a terminal, which sends it to all processes, while torchrun hands it on to each."""
    process = start()
    process.wait_for("preparing")
    process.wait_for("training")
    process.send(signal.SIGINT)
    process.send(signal.SIGINT)
    process.wait_for("saving")
    assert process.exit_code() == 130


def test_repeated_sigterms_let_the_process_save(start: Callable[..., Process]) -> None:
    process = start("save")
    process.wait_for("preparing")
    process.wait_for("training")
    process.send(signal.SIGTERM)
    process.wait_for("saving")
    process.send(signal.SIGTERM)
    process.send(signal.SIGTERM)
    assert process.is_running()


ON_RAY = """
import threading, time
from workers.training.safety.signals import heed_sigterm, of_ray_worker
heed_sigterm()
def train():
    print("training", flush=True)
    while not of_ray_worker.is_asked: time.sleep(0.01)
    print(of_ray_worker.command.value, flush=True)
threading.Thread(target=train).start()
while threading.active_count() > 1: time.sleep(0.01)
"""


def test_a_worker_of_ray_makes_way_at_sigterm_while_its_loop_runs_in_another_thread() -> None:
    with subprocess.Popen([sys.executable, "-c", ON_RAY], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[0] == "make_way\n"
        assert process.returncode == 0
