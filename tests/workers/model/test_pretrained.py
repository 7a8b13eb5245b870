from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, BertForPreTraining, BertForSequenceClassification, BertModel

from workers.contract.problems import SpecError
from workers.contract.sources import SPECIAL_TOKENS
from workers.contract.spec.model import Model
from workers.corpus import tokenizer_files, vocabulary
from workers.model.bert import PretrainingBert, build, configuration
from workers.model.pretrained import Taken, take_weights

SIZES = {"layers": 2, "hidden": 16, "heads": 2, "intermediate": 32, "max_positions": 32}
TOKENS = [*SPECIAL_TOKENS, "a", "b", "##c"]


def folder_of(kind: Any, folder: Path) -> Path:
    """Save a model of transformers with weights of its own, and the tokenizer of TOKENS."""
    torch.manual_seed(7)
    kind(configuration(Model.model_validate(SIZES), len(TOKENS), pad_id=0)).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_files.publish(TOKENS, lowercase=True))
    return folder


def take(
    folder: Path, tokens: list[str] = TOKENS, *, lowercase: bool = True, **changes: Any
) -> tuple[PretrainingBert, Taken]:
    """Take a folder's weights into a model that was begun otherwise; return it and what the two do not share."""
    model = Model.model_validate(SIZES | {"init_from": str(folder)} | changes)
    module = build(model, len(tokens), seed=1, pad_id=0)
    return module, take_weights(module, model, tokens, lowercase=lowercase)


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_every_weight_is_taken_to_the_bit(tmp_path: Path) -> None:
    module, (lacking, _) = take(folder_of(BertForPreTraining, tmp_path))
    assert lacking == []
    assert same(module.state_dict(), BertForPreTraining.from_pretrained(tmp_path).state_dict())


def test_of_a_plain_encoder_the_heads_start_as_they_were_drawn(tmp_path: Path) -> None:
    module, (lacking, _) = take(folder_of(BertModel, tmp_path))
    assert same(module.bert.state_dict(), BertModel.from_pretrained(tmp_path).state_dict())
    drawn = build(Model.model_validate(SIZES), len(TOKENS), seed=1, pad_id=0).cls.predictions.transform.state_dict()
    assert same(module.cls.predictions.transform.state_dict(), drawn)
    assert lacking
    assert all(name.startswith("cls.") for name in lacking)
    assert module.cls.predictions.decoder.weight is module.bert.embeddings.word_embeddings.weight


def test_a_masked_language_model_lacks_the_pooler_and_the_next_sentence_head(tmp_path: Path) -> None:
    _, (lacking, _) = take(folder_of(BertForMaskedLM, tmp_path))
    assert {name.rpartition(".")[0] for name in lacking} == {"bert.pooler.dense", "cls.seq_relationship"}


def test_what_the_model_has_no_place_for_is_named(tmp_path: Path) -> None:
    _, taken = take(folder_of(BertForSequenceClassification, tmp_path))
    assert taken.left_out == ["classifier.bias", "classifier.weight"]


def test_names_of_older_checkpoints_are_understood(tmp_path: Path) -> None:
    weights = load_file(folder_of(BertForPreTraining, tmp_path) / "model.safetensors")
    for new, old in {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}.items():
        weights = {name.replace(new, old): weight for name, weight in weights.items()}
    expected = BertForPreTraining.from_pretrained(tmp_path).state_dict()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    module, (lacking, _) = take(tmp_path)
    assert lacking == []
    assert same(module.state_dict(), expected)


def test_the_random_state_is_as_it_was(tmp_path: Path) -> None:
    folder_of(BertModel, tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    take(tmp_path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("changes", "tensor"),
    [
        ({"hidden": 32}, r"bert.embeddings.word_embeddings.weight has the shape \(8, 16\) there, and .* \(8, 32\)"),
        ({"max_positions": 64}, r"bert.embeddings.position_embeddings.weight has the shape \(32, 16\)"),
        ({"intermediate": 64}, r"bert.encoder.layer.0.intermediate.dense.weight has the shape \(32, 16\)"),
        ({"layers": 3}, r"bert.encoder.layer.2.attention.self.query.weight has no place there, and the shape"),
        ({"layers": 1}, r"bert.encoder.layer.1.attention.self.query.weight has .* there, and no place in this job"),
    ],
)
def test_another_shape_is_refused_with_the_first_tensor_that_differs(
    changes: dict[str, Any], tensor: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=tensor):
        take(folder_of(BertForPreTraining, tmp_path), **changes)


def test_a_folder_without_the_whole_encoder_is_refused(tmp_path: Path) -> None:
    weights = load_file(folder_of(BertForPreTraining, tmp_path) / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SpecError, match=r"it lacks bert.encoder.layer.1.output.dense.bias"):
        take(tmp_path)


def test_another_vocabulary_is_refused_with_the_first_row_that_differs(tmp_path: Path) -> None:
    folder_of(BertForPreTraining, tmp_path)
    other = [*TOKENS[:6], "z", TOKENS[7]]
    with pytest.raises(SpecError, match=r"word_embeddings.weight is of another .*: row 6 is 'b' there and 'z' in this"):
        take(tmp_path, other)
    with pytest.raises(SpecError, match="row 8 is absent there and 'd' in this job"):
        take(tmp_path, [*TOKENS, "d"])
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(SpecError, match=r"word_embeddings.weight has the shape \(8, 16\) there, and .* \(9, 16\)"):
        take(tmp_path, [*TOKENS, "d"])


def test_a_tokenizer_that_reads_the_case_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"reads text in lower case, and this job with its case.*data.lowercase: true"):
        take(folder_of(BertForPreTraining, tmp_path), lowercase=False)


def test_weights_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    weights = folder_of(BertForPreTraining, tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(SpecError, match="its weights cannot be read"):
        take(tmp_path)
    weights.unlink()
    with pytest.raises(SpecError, match="its weights cannot be read"):
        take(tmp_path)


def test_the_vocabulary_of_a_folder_is_read_from_either_file(tmp_path: Path) -> None:
    assert vocabulary.load(folder_of(BertModel, tmp_path)) == TOKENS
    (tmp_path / "vocab.txt").write_text("\n".join([*TOKENS, "d"]))
    assert vocabulary.load(tmp_path) == [*TOKENS, "d"]
