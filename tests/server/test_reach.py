import gzip
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server import reach as module
from server.reach import Reach
from server.settings import Settings
from tests.serving import TINY
from workers.contract.documents import parse_spec
from workers.contract.problems import SpecError
from workers.contract.spec.job import JobSpec


def job(*corpus: object, **fields: Any) -> JobSpec:
    data = {"corpus": [*map(str, corpus)] or ["builtin:austen"], "vocab": 1024} | fields.pop("data", {})
    return parse_spec(TINY | {"data": data} | fields)


def refused(reach: Reach, spec: JobSpec) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        reach.check(spec)
    return [(problem.field, problem.problem) for problem in caught.value.problems]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "deep" / "text.txt"
    path.parent.mkdir(parents=True)
    path.write_text("It is a truth universally acknowledged.\n" * 10_000)
    return path


@pytest.fixture
def open_reach(tmp_path: Path) -> Reach:
    return Reach(Settings(tmp_path / "home"))


@pytest.fixture
def confined(tmp_path: Path, text: Path) -> Reach:
    return Reach(Settings(tmp_path / "home", data_roots=(text.parents[1],)))


FORMS: list[Callable[[Path], str]] = [
    str,
    lambda path: f"file://{path}",
    lambda path: f"{path.parent}/../{path.parent.name}/{path.name}",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("depth", [0, 1, 2], ids=["root", "folder", "file"])
def test_files_and_folders_below_a_root_can_be_named(
    confined: Reach, text: Path, form: Callable[[Path], str], depth: int
) -> None:
    path = [text.parents[1], text.parent, text][depth]
    assert confined.check(job(form(path))) == []
    assert confined.check(job("builtin:austen", data={"validation": [form(path)]})) == []
    assert confined.check(job(f"{text.parents[1]}/**/*.txt")) == []


@pytest.mark.parametrize("field", ["corpus", "validation", "vocab", "init_from", "start_from"])
def test_nothing_outside_the_roots_can_be_named_whether_it_is_there_or_not(
    confined: Reach, tmp_path: Path, field: str
) -> None:
    (tmp_path / "there.txt").write_text("A word.\n")
    for name in ("there.txt", "not-there.txt", "data/../there.txt", "*.txt"):
        path = f"{tmp_path}/{name}"
        spec = {
            "corpus": lambda path=path: job(path),
            "validation": lambda path=path: job(data={"validation": [path]}),
            "vocab": lambda path=path: job(data={"vocab": path}),
            "init_from": lambda path=path: job(model=TINY["model"] | {"init_from": path}),
            "start_from": lambda path=path: job(start_from={"run": path, "step": 1}),
        }[field]()
        [(named, problem)] = refused(confined, spec)
        assert field in named
        assert problem == "lies outside the folders that jobs may read here"


def test_a_link_below_a_root_that_leads_out_of_it_is_refused_where_it_is_named_and_where_it_is_found(
    confined: Reach, text: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("A word.\n")
    link = text.with_name("link.txt")
    link.symlink_to(tmp_path / "secret.txt")
    outside = "lies outside the folders that jobs may read here"
    assert refused(confined, job(link)) == [("data.corpus[0]", outside)]
    assert refused(confined, job(text.parents[1])) == [("data.corpus[0]", outside)]
    link.unlink()
    link.symlink_to(text)
    assert confined.check(job(link)) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/**/*.txt", "/proc/self/environ", "/", "/dev/zero", "/run"])
@pytest.mark.parametrize("field", ["corpus", "vocab"])
def test_without_roots_the_files_of_the_system_are_refused(open_reach: Reach, path: str, field: str) -> None:
    spec = job(path) if field == "corpus" else job(data={"vocab": path})
    [(named, problem)] = refused(open_reach, spec)
    assert named.startswith(f"data.{field}")
    assert problem == "is, or holds, a folder of the operating system"


def test_the_files_of_the_server_are_refused_but_for_the_models_that_its_runs_exported(
    open_reach: Reach, tmp_path: Path
) -> None:
    run = tmp_path / "home" / "runs" / "abc"
    for name in ("../../admin.token", "control.json", "export/vocab.txt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("[PAD]\n")
    own = "lies in the folder of the server itself"
    for path in (tmp_path / "home" / "admin.token", run / "control.json", tmp_path / "home", run):
        assert refused(open_reach, job(data={"vocab": str(path)})) == [("data.vocab", own)]
    assert open_reach.check(job(data={"vocab": str(run / "export")})) == []
    assert open_reach.check(job(start_from={"run": str(run), "step": 1})) == []


@pytest.mark.parametrize(
    "url", ["local:///etc/passwd", "simplecache::file:///etc/passwd", "zip://a.txt::/etc/a.zip", "git:///srv/a.txt"]
)
def test_a_url_that_leads_to_files_of_this_machine_is_refused(open_reach: Reach, url: str) -> None:
    assert refused(open_reach, job(url)) == [("data.corpus[0]", "is a URL that may read files of this machine")]


def test_a_url_of_another_file_system_is_left_to_the_workers(confined: Reach) -> None:
    assert confined.check(job("hf://datasets/somebody/something", "memory://a.txt")) == []


def test_of_a_text_nothing_is_read_however_it_expands(open_reach: Reach, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "bomb.txt.gz", "wb", compresslevel=9) as file:
        for _ in range(256):
            file.write(bytes(2**20))
    with (tmp_path / "sparse.txt").open("wb") as file:
        file.truncate(2**31)
    tracemalloc.start()
    open_reach.check(job(tmp_path / "bomb.txt.gz", tmp_path / "sparse.txt"))
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 2**20


@pytest.mark.parametrize("field", ["corpus", "validation", "vocab", "init_from"])
def test_a_pipe_is_refused_and_nobody_waits_for_it(open_reach: Reach, tmp_path: Path, field: str) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    os.mkfifo(tmp_path / "config.json")
    pipe = str(tmp_path / "pipe.txt")
    spec = {
        "corpus": lambda: job(pipe),
        "validation": lambda: job(data={"validation": [pipe]}),
        "vocab": lambda: job(data={"vocab": pipe}),
        "init_from": lambda: job(model=TINY["model"] | {"init_from": str(tmp_path)}, data={"vocab": 1024}),
    }[field]()
    assert [field in named for named, _ in refused(open_reach, spec)] == [True]


def test_files_that_cannot_be_looked_at_in_time_are_left_to_the_job_with_a_warning(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = threading.Event()

    def slow(*_: object) -> dict[str, Any]:
        answers.wait()
        return {}

    confined = Reach(Settings(tmp_path / "home", data_roots=(text.parents[1],)), limit_s=0.1)
    monkeypatch.setattr(module, "check_files", slow)
    for _ in range(8):
        [warning] = confined.check(job(text))
        assert (warning.field, warning.problem) == ("data", "could not be looked at within 0.1 s")
    assert "the files of job tiny could not be looked at" in caplog.text
    alive = [thread for thread in threading.enumerate() if thread.name.startswith("look at")]
    assert refused(confined, job(text)) == [("data", "could not be looked at within 0.1 s")]  # no thread more
    assert len(alive) == 8
    assert all(thread.daemon for thread in alive)
    answers.set()
    for thread in alive:
        thread.join()
    assert confined.check(job(text)) == []


def test_files_that_only_the_machines_of_a_cluster_have_are_left_to_the_preparation(text: Path, tmp_path: Path) -> None:
    address = "http://head:8265"
    reach = Reach(Settings(tmp_path / "home", ray_address=address))
    absent = tmp_path / "absent"
    spec = job(text, absent / "a.txt", data={"validation": [f"{absent}/*.txt"], "vocab": f"{absent}/vocab.txt"})
    fields = ["data.corpus[1]", "data.validation[0]", "data.vocab"]
    assert [(each.field, each.problem) for each in reach.check(spec)] == [
        (field, "is not on the server's machine") for field in fields
    ]
    assert [field for field, _ in refused(Reach(Settings(tmp_path / "home")), spec)] == fields
    confined = Reach(Settings(tmp_path / "home", data_roots=(tmp_path,), ray_address=address))
    assert [field for field, _ in refused(confined, spec)] == fields


def test_beside_a_file_that_only_the_cluster_has_those_that_are_here_are_checked(text: Path, tmp_path: Path) -> None:
    reach = Reach(Settings(tmp_path / "home", ray_address="http://head:8265"))
    (text.parent / "link.txt").symlink_to("/etc/passwd")
    [(field, problem)] = refused(reach, job(tmp_path / "absent.txt", text.parent))
    assert (field, problem) == ("data.corpus[1]", "is, or holds, a folder of the operating system")
    assert [field for field, _ in refused(reach, job("absent.txt", text))] == ["data.corpus[0]"]
    assert [field for field, _ in refused(reach, job("/etc/absent.txt"))] == ["data.corpus[0]"]
