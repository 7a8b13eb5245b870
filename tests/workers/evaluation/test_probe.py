import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForPreTraining

from workers.contract.sources import SPECIAL_TOKENS
from workers.corpus import tokenizer_files
from workers.evaluation.probe import TESTED, TRAINED, Accuracies, Verdict, main, samples, told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder with random weights, whose tokenizer knows a few words of the glosses."""
    folder = tmp_path_factory.mktemp("tiny")
    letters = [form for letter in "abcdefghijklmnopqrstuvwxyz" for form in (letter, f"##{letter}")]
    tokens = [*SPECIAL_TOKENS, *letters, "the", "of", "a", "plant", "person", "animal", "who", "tree", "genus", "bird"]
    published = tokenizer_files.publish(tokens, lowercase=True)
    (folder / "tokenizer.json").write_text(published)
    (folder / "tokenizer_config.json").write_text(tokenizer_files.configuration(published, 64))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForPreTraining(BertConfig(vocab_size=len(tokens), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    return folder


def test_random_weights_show_no_margin(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [len(found[arm]["each"]) for arm in ("encoder", "random")] == [3, 3]
    assert all(share < 0.6 for arm in ("encoder", "random") for share in found[arm]["each"])
    assert found["shows_a_margin"] is False


def test_a_verdict_is_told_with_the_mean_and_the_spread_of_the_seeds() -> None:
    verdict = Verdict(Accuracies((0.7, 0.72, 0.71)), Accuracies((0.2, 0.21, 0.22)))
    assert told(verdict, as_json=False).splitlines() == [
        "encoder  71.0% (seeds differ by 2.0%)",
        "random   21.0% (seeds differ by 2.0%)",
        "The encoder is better than a random one of its shape by more than the seeds differ.",
    ]
    assert json.loads(told(verdict, as_json=True))["encoder"]["each"] == [0.7, 0.72, 0.71]


def test_an_encoder_shows_a_margin_where_it_is_better_by_more_than_the_seeds_of_either_differ() -> None:
    good, close, wide = Accuracies((0.7, 0.72, 0.71)), Accuracies((0.69, 0.7, 0.71)), Accuracies((0.3, 0.75, 0.2))
    chance = Accuracies((0.2, 0.21, 0.22))
    assert Verdict(good, chance).shows_a_margin
    assert not Verdict(good, close).shows_a_margin
    assert not Verdict(wide, chance).shows_a_margin
    assert not Verdict(chance, good).shows_a_margin


def test_what_is_tested_with_is_not_learned_and_all_classes_occur() -> None:
    learned, tested, n_classes = samples()
    assert (len(learned), len(tested), n_classes) == (TRAINED, TESTED, 10)
    assert {number for _, number in learned} == {number for _, number in tested} == set(range(10))
    assert samples() == (learned, tested, n_classes)
    shared = {gloss for gloss, _ in learned} & {gloss for gloss, _ in tested}
    assert len(shared) < TESTED / 100  # a few words share their gloss


def test_a_folder_that_is_no_bert_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--json"]) == 2
    assert "is not a BERT that transformers loads" in json.loads(capsys.readouterr().err)["detail"]
