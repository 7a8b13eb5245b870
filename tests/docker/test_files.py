"""The files of docker/ against the project; docs/docker.md says what was tried with them."""

import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.cluster.process import OBJECT_STORE_BYTES

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = sorted((ROOT / "docker").glob("compose*.yaml"))


def instructions(name: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in DOCKERFILE.splitlines() if line.startswith(name + " ")]


def server_of(file: Path) -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load(file.read_text())["services"]["server"]
    return service


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [linter, ROOT / "docker" / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [source for arguments in instructions("COPY") for source in arguments[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not any(fnmatch(source, f"{each}*") for each in sent)] == []


def test_every_package_of_the_project_is_copied() -> None:
    copied = {source for arguments in instructions("COPY") for source in arguments[:-1]}
    text = (ROOT / "pyproject.toml").read_text()
    (listed,) = re.findall(r"^include = \[(.*)\]", text, re.MULTILINE)
    assert {name.strip(' "*') for name in listed.split(",")} <= copied


def test_the_command_of_the_image_is_one_that_bigbatch_has() -> None:
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
    (command,) = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
    program, *arguments = yaml.safe_load(entry) + yaml.safe_load(command)
    run = [str(Path(sys.executable).with_name(program)), *arguments, "--help"]
    assert subprocess.run(run, capture_output=True, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_compose_builds_with_an_argument_that_the_dockerfile_knows(file: Path) -> None:
    declared = {arguments[0].partition("=")[0] for arguments in instructions("ARG")}
    assert set(server_of(file)["build"]["args"]) <= declared


def test_the_volume_of_compose_is_the_home_of_the_image() -> None:
    service = server_of(ROOT / "docker" / "compose.yaml")
    (home,) = re.findall(r"BIGBATCH_HOME=(\S+)", DOCKERFILE)
    assert [volume.partition(":")[2] for volume in service["volumes"]] == [home]
    assert instructions("VOLUME") == [[home]]


def test_compose_gives_more_shared_memory_than_the_object_store_takes() -> None:
    size = server_of(ROOT / "docker" / "compose.yaml")["shm_size"]
    assert size.endswith("gb")
    assert int(size.removesuffix("gb")) * 2**30 > 2 * OBJECT_STORE_BYTES
