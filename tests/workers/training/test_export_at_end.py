from pathlib import Path

from transformers import AutoTokenizer, BertForPreTraining

from tests.ranks import run_on_ranks
from tests.workers.small_job import PHASE, document
from tests.workers.training.running import records, train
from workers.contract.exports import read_export
from workers.contract.records import AlertRecord, LogRecord, RunStatus, StatusRecord


def exports(folder: Path) -> list[str]:
    return [r.text for r in records(folder) if isinstance(r, LogRecord) and r.text.startswith("model: exported to")]


def last_status(folder: Path) -> StatusRecord:
    return [record for record in records(folder) if isinstance(record, StatusRecord)][-1]


def test_a_run_that_ends_has_exported_its_model_and_says_where(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train(document(text), folder, tmp_path) is RunStatus.SUCCEEDED
    status = last_status(folder)
    assert (status.status, status.export_path) == ("SUCCEEDED", str(folder / "export"))
    summary = records(folder)[-2]
    assert isinstance(summary, LogRecord)
    assert summary.text.endswith(f"\nmodel: {folder / 'export'}")
    assert len(exports(folder)) == 1
    assert "bert" in BertForPreTraining.from_pretrained(folder / "export").state_dict().popitem(last=False)[0]
    assert len(AutoTokenizer.from_pretrained(folder / "export")) > 5


def test_of_two_workers_one_exports(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_on_ranks(2, train, document(text, workers=2), folder, tmp_path)
    manifest = read_export(folder / "export")
    assert manifest is not None
    assert manifest.step == PHASE["steps"]


def test_nothing_is_exported_where_the_specification_says_so(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(document(text, export={"at_end": False}), folder, tmp_path)
    assert last_status(folder).export_path is None
    assert not (folder / "export").exists()


def test_a_model_is_exported_again_only_where_the_run_has_gone_on(text: Path, tmp_path: Path) -> None:
    folder, constant = tmp_path / "run", PHASE | {"decay": {"kind": "constant"}}
    train(document(text, phases=[constant]), folder, tmp_path)
    train(document(text, phases=[constant]), folder, tmp_path, attempt=2)
    assert len(exports(folder)) == 1
    assert last_status(folder).export_path == str(folder / "export")
    train(document(text, phases=[constant, constant]), folder, tmp_path, attempt=3)
    assert len(exports(folder)) == 2
    manifest = read_export(folder / "export")
    assert manifest is not None
    assert manifest.step == 2 * PHASE["steps"]


def test_a_run_whose_model_cannot_be_exported_has_succeeded_and_says_why_and_what_to_do(
    text: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    (folder / "export").mkdir(parents=True)
    (folder / "export" / "thesis.txt").touch()
    assert train(document(text), folder, tmp_path) is RunStatus.SUCCEEDED
    alert = [record for record in records(folder) if isinstance(record, AlertRecord)][-1]
    assert (alert.level, alert.title) == ("error", "The model was not exported")
    assert "is not an export of bigbatch" in alert.detail
    assert f"`bigbatch export {folder}`" in alert.detail
    assert last_status(folder).export_path is None
