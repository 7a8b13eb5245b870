import json
import os
import subprocess
import sys
from pathlib import Path

from tests.server.cli.command import ASCII
from tests.serving import TINY


def test_training_in_a_folder_with_packages_of_the_same_names_and_an_ascii_terminal(
    foreign_folder: Path, text: Path
) -> None:
    phase = {"seq_len": 16, "global_batch_size": 8, "micro_batch_size": 4, "steps": 1, "lr": 0.01}
    data = {"corpus": [str(text)], "vocab": 60}
    job = TINY | {"data": data, "phases": [phase], "parallel": {"workers": 2}}
    (foreign_folder / "job.yaml").write_text(json.dumps(job))
    environment = os.environ | ASCII | {"BIGBATCH_HOME": str(foreign_folder / "home")}
    command = [str(Path(sys.executable).with_name("bigbatch")), "train", "job.yaml", "--run", "run-é"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=foreign_folder, env=environment, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "wrong" not in done.stdout + done.stderr
    assert "run-\\xe9/checkpoints" in done.stdout.replace("\n", "")
