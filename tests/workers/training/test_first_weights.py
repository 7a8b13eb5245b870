from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from transformers import AutoTokenizer, BertModel

from tests.ranks import RankError, run_on_ranks
from tests.workers.small_job import document
from tests.workers.training.running import checkpoints, forget_after, records, steps, train
from workers.contract.documents import parse_spec
from workers.contract.manifests import read_shards
from workers.contract.phases import phase_windows
from workers.contract.problems import SpecError
from workers.contract.records import AlertRecord, LogRecord
from workers.corpus.prepare import prepare
from workers.model.sharding import whole
from workers.ranks import process_group
from workers.samples.dataset import open_phase
from workers.training.feeding import feed
from workers.training.step import set_up, take_step


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def exported(home: Path, text: Path) -> Path:
    """The export of a run of six steps."""
    train(document(text), home / "first", home)
    return home / "first" / "export"


def going_on(text: Path, start: Path, **changes: Any) -> dict[str, Any]:
    job = document(text, **changes)
    return job | {"seed": 5, "model": job["model"] | {"init_from": str(start)}, "data": {"corpus": [str(text)]}}


def weights_of(run: Path, tmp_path: Path) -> dict[str, torch.Tensor]:
    dcp_to_torch_save(run / "checkpoints" / checkpoints(run)[-1], tmp_path / "one.pt")
    weights: dict[str, torch.Tensor] = torch.load(tmp_path / "one.pt", weights_only=True)["model"]
    return weights


def test_what_was_exported_and_is_taken_in_again_trains_on_as_if_it_had_never_left(
    text: Path, exported: Path, home: Path, tmp_path: Path
) -> None:
    job = going_on(text, exported)
    train(job, tmp_path / "run", home)
    # The same steps from the weights of the checkpoint, which were never exported.
    spec = parse_spec(job)
    corpus = prepare(spec.data, home / "data")
    with process_group(spec):
        weights = weights_of(exported.parent, tmp_path)
        worker = set_up(spec, read_shards(corpus), lambda module: module.load_state_dict(weights))
        (window,) = phase_windows(spec.phases)
        data = open_phase(corpus, spec, window.phase)
        shares = feed(window, 0, data, worker.device)
        for record, (step, share) in zip(steps(tmp_path / "run"), shares, strict=True):
            take_step(worker, step, record.lr, share)
        trained = whole(worker.module).state_dict()
    taken = weights_of(tmp_path / "run", tmp_path)
    assert all(torch.equal(taken[name], weight) for name, weight in trained.items())
    texts = [record.text for record in records(tmp_path / "run") if isinstance(record, LogRecord)]
    assert f"model: starts with the weights of {exported}; the moments are new" in texts


def test_two_workers_that_shard_the_model_begin_with_the_same_weights(
    text: Path, exported: Path, home: Path, tmp_path: Path
) -> None:
    train(going_on(text, exported), tmp_path / "one", home)
    run_on_ranks(2, train, going_on(text, exported, workers=2, zero_stage=3), tmp_path / "two", home)
    one, two = next(steps(tmp_path / "one")), next(steps(tmp_path / "two"))
    assert one.loss == pytest.approx(two.loss, rel=1e-6)
    assert one.weight_norm == two.weight_norm


def test_a_run_that_resumes_goes_on_from_its_own_checkpoint_and_needs_the_weights_no_more(
    text: Path, exported: Path, home: Path, tmp_path: Path
) -> None:
    start, run = tmp_path / "start", tmp_path / "run"
    start.mkdir()
    for file in exported.iterdir():
        (start / file.name).write_bytes(file.read_bytes())
    train(going_on(text, start), run, home)
    through = [record.loss for record in steps(run)]
    forget_after(run, 2)
    (start / "model.safetensors").unlink()
    train(going_on(text, start), run, home, attempt=2)
    assert [record.loss for record in steps(run)] == through


def test_heads_that_start_anew_are_told(text: Path, exported: Path, home: Path, tmp_path: Path) -> None:
    BertModel.from_pretrained(exported).save_pretrained(tmp_path / "encoder")
    AutoTokenizer.from_pretrained(exported).save_pretrained(tmp_path / "encoder")
    train(going_on(text, tmp_path / "encoder"), tmp_path / "run", home)
    (alert,) = [r for r in records(tmp_path / "run") if isinstance(r, AlertRecord) and "heads" in r.title]
    assert (alert.level, alert.title) == ("warning", "The heads of the model start anew")
    assert "cls.predictions.transform.dense.weight" in alert.detail


def test_a_folder_that_does_not_fit_is_refused_on_every_rank(
    text: Path, exported: Path, home: Path, tmp_path: Path
) -> None:
    job = going_on(text, exported)
    job["model"] = job["model"] | {"intermediate": 64}
    with pytest.raises(SpecError, match=r"model.intermediate = 64: .* has 32"):
        train(job, tmp_path / "run", home)
    with pytest.raises(RankError, match=r"model.intermediate = 64"):
        run_on_ranks(2, train, job | {"parallel": {"workers": 2}}, tmp_path / "two", home)
