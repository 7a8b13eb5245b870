import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from transformers import AutoTokenizer, BertForMaskedLM, BertForPreTraining, BertModel

from tests.ranks import run_on_ranks
from tests.workers.small_job import PHASE, four_steps
from tests.workers.training.running import checkpoints, train
from workers.checkpoints.errors import ExportError
from workers.checkpoints.to_transformers import export
from workers.contract.documents import parse_spec
from workers.contract.exports import read_export
from workers.contract.files import BusyError, replacing_folder
from workers.contract.run.folder import RunFolder
from workers.contract.sources import SPECIAL_TOKENS
from workers.corpus import tokenizer_files
from workers.model.bert import build


@pytest.fixture(scope="module")
def exported(run: RunFolder, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, run.spec(), tmp_path_factory.mktemp("models") / "model", home / "data").path


def weights_by_torch(run: RunFolder, tmp_path: Path) -> dict[str, torch.Tensor]:
    """The weights of the newest checkpoint as torch's own converter reads them."""
    newest = run.path / "checkpoints" / checkpoints(run.path)[-1]
    dcp_to_torch_save(newest, tmp_path / "one.pt")
    weights: dict[str, torch.Tensor] = torch.load(tmp_path / "one.pt", weights_only=True)["model"]
    return weights


NOT_IN_THE_CLASS = {
    BertForPreTraining: (),
    BertForMaskedLM: ("cls.seq_relationship.", "bert.pooler."),
    BertModel: ("cls.",),
}


@pytest.mark.parametrize("model", NOT_IN_THE_CLASS)
def test_transformers_finds_every_weight_of_a_class_and_no_others_but_the_heads_that_it_lacks(
    model: Any, exported: Path
) -> None:
    told = model.from_pretrained(exported, output_loading_info=True)[1]
    written = load_file(exported / "model.safetensors")
    foreign = {name for name in written if name.startswith(NOT_IN_THE_CLASS[model])}
    assert told.pop("unexpected_keys") == foreign
    assert {what: list(names) for what, names in told.items() if names} == {}


def test_the_weights_are_those_of_the_checkpoint_to_the_bit(exported: Path, run: RunFolder, tmp_path: Path) -> None:
    loaded = BertForPreTraining.from_pretrained(exported).state_dict()
    expected = weights_by_torch(run, tmp_path)
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_the_file_holds_what_transformers_itself_would_write_and_tied_weights_once(
    exported: Path, tmp_path: Path
) -> None:
    BertForPreTraining.from_pretrained(exported).save_pretrained(tmp_path)
    ours, theirs = load_file(exported / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert "cls.predictions.decoder.weight" not in ours


def test_the_logits_are_ours_to_the_bit(exported: Path, run: RunFolder, tmp_path: Path) -> None:
    spec, loaded = run.spec(), BertForPreTraining.from_pretrained(exported)
    ours = build(spec.model, loaded.config.vocab_size, seed=9, pad_id=0).eval()
    ours.load_state_dict(weights_by_torch(run, tmp_path))
    ids_BS = torch.arange(64).reshape(2, 32) % loaded.config.vocab_size
    with torch.inference_mode():
        scores_BSV, next_sentence_B2 = ours.cls(*ours.bert(ids_BS)[:2])
        theirs = loaded.eval()(ids_BS)
    assert torch.equal(theirs.prediction_logits, scores_BSV)
    assert torch.equal(theirs.seq_relationship_logits, next_sentence_B2)


def test_a_process_without_our_packages_fills_in_a_mask_offline(exported: Path) -> None:
    program = f"""
import importlib.util, json, sys
sys.path.append({sysconfig.get_paths()["purelib"]!r})
ours = [name for name in ("optim", "workers", "server") if importlib.util.find_spec(name)]
from transformers import AutoModel, AutoTokenizer, pipeline
AutoTokenizer.from_pretrained({str(exported)!r}), AutoModel.from_pretrained({str(exported)!r})
filled = pipeline("fill-mask", {str(exported)!r})("the [MASK] sleeps.")
print(json.dumps([ours, filled]))
"""
    # -S: no .pth file of an editable installation is read, so our packages are not on the path.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours, filled = json.loads(done.stdout)
    assert ours == []
    assert len(filled) == 5
    assert all(answer["sequence"].endswith("sleeps.") for answer in filled)


def test_the_tokenizer_is_the_one_that_the_run_was_trained_with(exported: Path, run: RunFolder) -> None:
    loaded = AutoTokenizer.from_pretrained(exported)
    tokens = (exported / "vocab.txt").read_text().splitlines()
    assert loaded.convert_ids_to_tokens(range(len(tokens))) == tokens
    assert BertForPreTraining.from_pretrained(exported).config.vocab_size == len(tokens)
    assert (exported / "tokenizer.json").read_text() == run.tokenizer()


def test_whoever_may_read_one_file_may_read_all(exported: Path) -> None:
    assert len({path.stat().st_mode for path in exported.iterdir()}) == 1


def test_the_model_card_says_data_recipe_steps_figures_and_versions(exported: Path, text: Path) -> None:
    card = (exported / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["pipeline_tag"] == "fill-mask"
    recipe = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert recipe["phases"][0]["lr"] == PHASE["lr"]
    for part in (f"`{text}`", "4 of 4 steps", "MLM loss of step 4", "- torch ", "- bigbatch ", "licence of this text"):
        assert part in card


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_what_two_workers_wrote_is_exported_by_one_process_to_the_bit(
    stage: int, text: Path, home: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    job = four_steps(text, workers=2, zero_stage=stage)
    run_on_ranks(2, train, job, run.path, home)
    run.put_spec(parse_spec(job))
    folder = export(run, run.spec(), tmp_path / "model", home / "data").path
    exported, expected = load_file(folder / "model.safetensors"), weights_by_torch(run, tmp_path)
    assert exported.keys() == expected.keys() - {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    assert all(torch.equal(exported[name], expected[name]) for name in exported)


def test_an_earlier_checkpoint_is_exported_where_its_step_is_named(run: RunFolder, home: Path, tmp_path: Path) -> None:
    done = export(run, run.spec(), tmp_path / "model", home / "data", step=2)
    assert (done.manifest.step, read_export(done.path)) == (2, done.manifest)
    assert "2 of 4 steps" in (done.path / "README.md").read_text()
    with pytest.raises(ExportError, match=r"has no checkpoint of step 3: choose one of 2, 4"):
        export(run, run.spec(), tmp_path / "model", home / "data", step=3)


def test_a_damaged_checkpoint_is_named_with_the_next_older_one(run: RunFolder, home: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path)
    for file in (copy.path / "checkpoints").glob("step-00000004*/*.distcp"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ExportError, match=r"step-00000004-a1 is damaged: .* bytes.* older one is that of step 2"):
        export(copy, copy.spec(), tmp_path / "model", home / "data")
    assert not (tmp_path / "model").exists()
    assert export(copy, copy.spec(), tmp_path / "model", home / "data", step=2).manifest.step == 2


def test_a_run_without_a_checkpoint_says_when_the_first_is_due(run: RunFolder, home: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path)
    for manifest in (copy.path / "checkpoints").glob("*/manifest.json"):
        manifest.unlink()
    with pytest.raises(ExportError, match=r"has no finished checkpoint: .* after checkpoint.every_steps = 2 steps"):
        export(copy, copy.spec(), tmp_path / "model", home / "data")


@pytest.mark.parametrize(
    ("tokenizer", "fault"),
    [
        ("{", r"tokenizer.json in the run folder cannot be read"),
        (
            tokenizer_files.publish([*SPECIAL_TOKENS, "a"], lowercase=True),
            r"has \d+ rows, and .* vocabulary has 6 tokens",
        ),
    ],
    ids=["damaged", "another run's"],
)
def test_a_tokenizer_that_is_not_the_runs_is_refused(
    tokenizer: str, fault: str, run: RunFolder, home: Path, tmp_path: Path
) -> None:
    copy = copy_of(run, tmp_path)
    copy.put_tokenizer(tokenizer)
    with pytest.raises(ExportError, match=fault):
        export(copy, copy.spec(), tmp_path / "model", home / "data")
    assert not (tmp_path / "model").exists()


def test_a_folder_that_is_no_export_is_left_as_it_is(run: RunFolder, home: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ExportError, match="exists and is not an export of bigbatch: name another folder"):
        export(run, run.spec(), tmp_path / "mine", home / "data")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


def test_an_older_export_stays_until_the_new_one_is_whole(run: RunFolder, home: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    export(run, run.spec(), target, home / "data", step=2)

    def fail(what: str, _done: float) -> None:
        if what == "writing":
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        export(run, run.spec(), target, home / "data", report=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert read_export(target) == export(run, run.spec(), tmp_path / "again", home / "data", step=2).manifest
    assert export(run, run.spec(), target, home / "data").manifest.step == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "model"]


def test_what_a_killed_export_left_is_cleared_away_and_one_at_work_is_not_disturbed(
    run: RunFolder, home: Path, tmp_path: Path
) -> None:
    (tmp_path / ".draft-model").mkdir()
    (tmp_path / ".draft-model" / "half.safetensors").touch()
    export(run, run.spec(), tmp_path / "model", home / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with replacing_folder(tmp_path / "model"), pytest.raises(BusyError):
        export(run, run.spec(), tmp_path / "model", home / "data")


def copy_of(run: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")
