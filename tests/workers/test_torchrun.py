import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from tests.workers.small_job import document

PROGRAM = [sys.executable, "-X", "importtime", "-m", "workers.torchrun"]


def test_ctrl_c_while_torchrun_is_being_imported_ends_it_without_a_traceback(tmp_path: Path) -> None:
    said = []
    with subprocess.Popen([*PROGRAM, "2", str(tmp_path / "job.yaml")], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if line.endswith(" torch._utils_internal\n"):  # among the first modules of torch
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130, "".join(said[-20:])
    assert "Traceback" not in "".join(said)


def test_where_the_ranks_refuse_a_job_their_exit_code_is_that_of_the_whole(text: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document(text, workers=2)))
    (tmp_path / "run").write_text("this is no folder")
    command = [
        sys.executable,
        "-m",
        "workers.torchrun",
        "2",
        str(tmp_path / "job.yaml"),
        "--run",
        str(tmp_path / "run"),
    ]
    environment = os.environ | {"BIGBATCH_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 2, done.stderr
    assert "cannot be made" in done.stderr
    assert "Traceback" not in done.stderr
