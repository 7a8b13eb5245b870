import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.server.cli.command import ASCII, run_bigbatch
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


def test_the_model_of_a_job_is_exported_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    kept = Path(__file__).parents[3] / "data" / "run_folders" / "format-1"
    shutil.copytree(kept, tmp_path / "home" / "runs" / "1qx92r16q7na")
    command = [str(Path(sys.executable).with_name("bigbatch")), "export", "1qx9", "models/small", "--json"]
    environment = os.environ | {"BIGBATCH_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["path"] == str(tmp_path / "models" / "small")
    assert (tmp_path / "models" / "small" / "model.safetensors").exists()


def test_a_run_that_is_not_there_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "runs" / "1qx92r16q7na").mkdir(parents=True)
    (tmp_path / "runs" / "1qx92r16q7nb").mkdir()
    unknown = run_bigbatch("export", "runs/demo", "--home", tmp_path)
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "'runs/demo' is neither a run folder" in unknown.stderr
    several = run_bigbatch("export", "1qx9", "--home", tmp_path, "--json")
    assert "2 job ids begin with '1qx9'" in json.loads(several.stderr)["detail"]
