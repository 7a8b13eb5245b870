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


def test_with_ranks_that_the_batch_does_not_divide_by_a_job_is_refused_without_a_traceback(
    text: Path, tmp_path: Path
) -> None:
    job, run = tmp_path / "job.yaml", tmp_path / "run"
    job.write_text(yaml.safe_dump(document(text, workers=2) | {"parallel": {"workers": {"min": 1, "max": 2}}}))
    command = [sys.executable, "-m", "workers.torchrun", "3", str(job), "--run", str(run)]
    environment = os.environ | {"BIGBATCH_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 2, done.stderr
    assert "parallel.workers" in done.stderr
    assert "this job cannot run on 3 workers" in done.stderr
    assert "Traceback" not in done.stderr
    assert not run.exists()
