import json
import os
import subprocess
import sys
from pathlib import Path

from tests.server.cli.command import ASCII
from tests.serving import TINY


def test_text_is_prepared_in_a_folder_with_packages_of_the_same_names_and_an_ascii_terminal(
    foreign_folder: Path, text: Path
) -> None:
    named = foreign_folder / "café.txt"
    named.write_bytes(text.read_bytes())
    (foreign_folder / "job.yaml").write_text(json.dumps(TINY | {"data": {"corpus": [str(named)], "vocab": 60}}))
    environment = os.environ | ASCII | {"BIGBATCH_HOME": str(foreign_folder / "home-é")}
    command = [str(Path(sys.executable).with_name("bigbatch")), "data", "prepare", "job.yaml", "--processes", "2"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=foreign_folder, env=environment, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "home-\\xe9/data" in done.stdout
    assert "wrong" not in done.stdout + done.stderr


def test_the_group_tells_what_it_has(foreign_folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("bigbatch")), "data"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=foreign_folder, timeout=200)
    assert "prepare" in done.stdout + done.stderr
