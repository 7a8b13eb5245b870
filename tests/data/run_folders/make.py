"""Keeps a small run folder as this version writes it, to be read by every later one.

    python -m tests.data.run_folders.make NAME

writes `tests/data/run_folders/NAME`. Make a new one whenever a format number is raised; never make an old one again.
"""

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from workers.contract.run.folder import RunFolder
from workers.train import main

JOB = """\
name: small
model: {layers: 1, hidden: 8, heads: 2, intermediate: 16, max_positions: 32, dropout: 0.0}
data: {corpus: ["builtin:austen-valid"], vocab: 300}
phases:
  - {seq_len: 32, global_batch_size: 8, micro_batch_size: 4, steps: 4, lr: 1.0e-2, warmup: 0.5}
checkpoint: {every_steps: 4, keep: 1}
"""


def make(target: Path) -> None:
    """Train the job in an empty folder, and keep what does not tell of this machine."""
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)  # so that no path in the records is of this machine
        os.environ["BIGBATCH_HOME"] = "home"
        Path("job.yaml").write_text(JOB)
        if main(["job.yaml", "--run", "runs/small"]) != 0:
            sys.exit("the training failed")
        folder = RunFolder(Path("runs/small"))
        text = folder.journal.read_text().replace(f"{Path.cwd()}/", "").replace(socket.gethostname(), "a-host")
        folder.journal.write_text(text)
        (folder.path / "lock").unlink()
        shutil.copytree(folder.path, target)


if __name__ == "__main__":
    make(Path(__file__).resolve().parent / sys.argv[1])
