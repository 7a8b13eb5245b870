"""Run folders of this version and every earlier one are read for good; `tests/data/run_folders/make.py` keeps them."""

import shutil
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from transformers import AutoTokenizer, BertForPreTraining

from workers.checkpoints.load import load_newest
from workers.checkpoints.to_transformers import export
from workers.contract.documents import parse_spec
from workers.contract.records import RECORD, Record, StatusRecord, StepRecord
from workers.contract.run.branches import branch
from workers.contract.run.folder import RunFolder
from workers.contract.spec.start_from import StartFrom
from workers.model.bert import build
from workers.ranks import process_group
from workers.training.optimizer import build_optimizer

KEPT = sorted(
    path for path in (Path(__file__).parents[1] / "data" / "run_folders").iterdir() if (path / "spec.yaml").exists()
)
TENSORS = 30
VOCABULARY = 300


@pytest.fixture(params=KEPT, ids=lambda path: path.name)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    """A copy of a folder that some version wrote: four steps of a model of one layer."""
    shutil.copytree(request.param, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def records(folder: RunFolder) -> list[Record]:
    return [RECORD.validate_json(line) for line in folder.journal.read_bytes().splitlines()]


def test_there_is_a_folder_of_this_version_and_one_from_before_formats_had_numbers() -> None:
    assert {path.name for path in KEPT} >= {"before-formats", "format-1"}


def test_its_specification_is_read(folder: RunFolder) -> None:
    spec = folder.spec()
    assert (spec.name, spec.total_steps, spec.phases[0].lr) == ("small", 4, 0.01)


def test_its_records_are_read_and_none_is_taken_for_damaged(folder: RunFolder) -> None:
    found = records(folder)
    assert [record.seq for record in found] == list(range(1, len(found) + 1))
    steps = [record for record in found if isinstance(record, StepRecord)]
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert all(len(step.trust_ratio or b"") == 4 * TENSORS for step in steps)
    assert [record.status for record in found if isinstance(record, StatusRecord)] == ["RUNNING", "SUCCEEDED"]
    before = folder.journal.read_bytes()
    folder.open_journal(2).close()
    assert (folder.journal.read_bytes(), folder.rejected.exists()) == (before, False)


def test_its_checkpoint_is_loaded_as_it_was_written(folder: RunFolder, tmp_path: Path) -> None:
    spec = folder.spec()
    module = build(spec.model, VOCABULARY, spec.seed, pad_id=0)
    optimizer = build_optimizer(spec, module)
    with process_group(spec):
        loaded = load_newest(folder, module, optimizer)
    assert loaded is not None
    assert (loaded.name.step, loaded.damaged) == (4, ())
    dcp_to_torch_save(folder.path / loaded.name.prefix, tmp_path / "one.pt")
    written = torch.load(tmp_path / "one.pt", weights_only=True)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, written["model"][name])
        state = written["optimizer"]["state"][name]
        assert torch.equal(optimizer.state[parameter]["exp_avg_sq"], state["exp_avg_sq"])


def test_the_steps_that_are_done_are_known(folder: RunFolder) -> None:
    assert folder.steps_done() == 4


def test_its_model_is_exported_with_the_vocabulary_that_it_was_trained_with(folder: RunFolder, tmp_path: Path) -> None:
    exported = export(folder, folder.spec(), tmp_path / "model", tmp_path / "data")
    model = BertForPreTraining.from_pretrained(exported.path)
    dcp_to_torch_save(folder.path / folder.checkpoints()[-1].prefix, tmp_path / "one.pt")
    written = torch.load(tmp_path / "one.pt", weights_only=True)["model"]
    assert all(torch.equal(weight, written[name]) for name, weight in model.state_dict().items())
    assert len(AutoTokenizer.from_pretrained(exported.path)) == VOCABULARY


def test_it_can_be_branched_from(folder: RunFolder, tmp_path: Path) -> None:
    document = folder.spec().model_dump(mode="json")
    document["phases"].append(document["phases"][0] | {"lr": 1e-3})
    spec, start = parse_spec(document), StartFrom(run=str(folder.path), step=4)
    new = RunFolder(tmp_path / "branch")
    branch(new, spec, start, folder)
    shutil.rmtree(folder.path)
    module = build(spec.model, VOCABULARY, spec.seed, pad_id=0)
    with process_group(spec):
        loaded = load_newest(new, module, build_optimizer(spec, module))
    assert loaded is not None
    assert (loaded.name.step, loaded.damaged) == (4, ())
