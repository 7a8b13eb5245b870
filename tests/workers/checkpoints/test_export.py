import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.checkpoint.state_dict_saver import save as torch_save
from transformers import BertForPreTraining

from tests.workers.small_job import four_steps
from workers.checkpoints.export import main
from workers.contract.documents import parse_spec
from workers.contract.run.folder import RunFolder
from workers.contract.sources import SPECIAL_TOKENS
from workers.corpus import tokenizer_files
from workers.model.bert import configuration


def test_the_program_says_where_the_model_lies(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run.path), str(tmp_path / "model"), "--data", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["path"], told["step"]) == (str(tmp_path / "model"), 4)
    assert told["size_bytes"] == sum(
        f.stat().st_size for f in (tmp_path / "model").iterdir() if f.name != "manifest.json"
    )
    assert main([str(run.path), "--data", str(tmp_path)]) == 0
    assert f"The model of step 4 is in {run.export}" in capsys.readouterr().out


def test_a_run_at_work_and_a_folder_that_is_no_run_are_refused(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.lock.acquire(lambda last: last + 1)
    try:
        assert main([str(run.path), str(tmp_path / "model"), "--data", str(tmp_path)]) == 2
    finally:
        run.lock.release()
    assert "is in use by attempt" in capsys.readouterr().err
    assert main([str(tmp_path), "--data", str(tmp_path), "--json"]) == 2
    assert "is not a run folder" in json.loads(capsys.readouterr().err)["detail"]
    assert not (tmp_path / "model").exists()


@pytest.mark.usefixtures("alone")
def test_an_export_takes_memory_for_about_one_copy_of_the_weights(text: Path, tmp_path: Path) -> None:
    """What the libraries take that are loaded before is left out."""
    run, weights_bytes = RunFolder(tmp_path / "run"), write_large(tmp_path / "run", text)
    # Not ru_maxrss, which begins at the size of the process that starts this one.
    program = """
import re, sys
from transformers import BertConfig
from workers.checkpoints import export
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
before = peak()
code = export.main(sys.argv[1:])
print(peak() - before)
sys.exit(code)
"""
    command = [sys.executable, "-c", program, str(run.path), "--data", str(tmp_path), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 1.5 * weights_bytes


def write_large(path: Path, text: Path) -> int:
    """Write a run folder with one checkpoint of 100 MB; return the size of the weights in bytes."""
    sizes = {"layers": 2, "hidden": 1024, "heads": 16, "intermediate": 4096}
    spec, folder = parse_spec(four_steps(text, model=sizes)), RunFolder(path)
    folder.put_spec(spec)
    folder.put_tokenizer(tokenizer_files.publish([*SPECIAL_TOKENS, "a"], lowercase=True))
    weights = BertForPreTraining(configuration(spec.model, 6, pad_id=0)).state_dict()
    checkpoint = path / "checkpoints" / "step-00000004"
    torch_save({"model": weights}, checkpoint_id=checkpoint)
    written = {file.name: file.stat().st_size for file in checkpoint.iterdir()}
    (checkpoint / "manifest.json").write_text(json.dumps({"step": 4, "world_size": 1, "sizes_bytes": written}))
    return sum(weight.nbytes for weight in weights.values())
