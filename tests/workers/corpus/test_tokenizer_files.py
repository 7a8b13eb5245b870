import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer

from workers.contract.sources import SPECIAL_TOKENS
from workers.corpus import tokenizer_files, vocabulary

_WORDS = ["caf", "cafe", "café", "naïve", "Zürich", "zurich", "##s", "##ing", "中", "文", "##文", "ß", "İ", "i", "##̇"]
_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789áéüñçÅøλдשع日本語한ไ.,!?'-#[]🙂👍🏽"
VOCABULARY = list(dict.fromkeys([*SPECIAL_TOKENS, *_WORDS, *_CHARACTERS, *(f"##{c}" for c in _CHARACTERS)]))

# What tokenizers stumble over: accents, precomposed and not, CJK, emoji, control and invisible characters, blanks of
# all kinds, case with and without a pair, punctuation, and words of more than a hundred characters.
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.text(alphabet=_CHARACTERS, max_size=20),
        st.text(alphabet="e\u0301\u0308 中文日本\U0001f642\U0001f3fd\u200d", max_size=12),
        st.text(alphabet="a\t\n\r\u00a0\u3000\u200b\ufeff\x00\x07\x7f\ufffd\ue000", max_size=12),
        st.text(alphabet="\u0130I\u0131ß\u017fΣςA", max_size=8),
        st.integers(95, 310).map("ab".__mul__),
        st.sampled_from(["mask", "[mask]", "[MAS K]", "##s", "[", "CLS]", "日本語のテキスト", "don't"]),
    ),
    max_size=6,
).map(" ".join)  # fmt: skip


@pytest.fixture(scope="module", params=[True, False], ids=["lower case", "cased"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a tokenizer as an export has them."""
    folder = tmp_path_factory.mktemp("tokenizer")
    published = tokenizer_files.publish(VOCABULARY, lowercase=request.param)
    (folder / "tokenizer.json").write_text(published, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(tokenizer_files.configuration(published, 64), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


def test_the_files_give_every_text_the_numbers_that_it_has_in_training(folder: Path) -> None:
    published = (folder / "tokenizer.json").read_text(encoding="utf-8")
    loaded = AutoTokenizer.from_pretrained(folder)
    ours = vocabulary.tokenizer(VOCABULARY, lowercase=tokenizer_files.is_lowercase(published))

    @settings(max_examples=300)
    @given(TEXTS.filter(lambda text: not any(token in text for token in SPECIAL_TOKENS)))
    def check(text: str) -> None:
        assert loaded(text, add_special_tokens=False)["input_ids"] == ours.encode(text, add_special_tokens=False).ids

    check()


def test_who_names_the_class_of_bert_gets_the_case_of_the_vocabulary_all_the_same(folder: Path) -> None:
    text = "Zürich cafés, 中文"
    numbers = [kind.from_pretrained(folder)(text)["input_ids"] for kind in (BertTokenizer, AutoTokenizer)]
    assert numbers[0] == numbers[1]


def test_a_special_token_that_is_written_in_the_text_is_one(folder: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(folder)
    encoded = loaded("a [MASK] b", "c", padding="max_length", max_length=10)
    tokens = loaded.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == ["[CLS]", "a", "[MASK]", "b", "[SEP]", "c", "[SEP]", "[PAD]", "[PAD]", "[PAD]"]
    assert encoded["token_type_ids"] == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert encoded["attention_mask"] == [1] * 7 + [0] * 3
    assert loaded.mask_token_id == VOCABULARY.index("[MASK]")


def test_a_text_that_is_too_long_for_the_positions_is_cut_where_that_is_asked_for(folder: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.model_max_length == 64
    assert len(loaded("a " * 100, truncation=True)["input_ids"]) == 64


def test_numbers_are_turned_back_into_words(folder: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.decode(loaded("cafes")["input_ids"], skip_special_tokens=True) == "cafes"


def test_the_vocabulary_and_its_case_are_read_back_as_they_were(folder: Path) -> None:
    published = (folder / "tokenizer.json").read_text(encoding="utf-8")
    assert tokenizer_files.vocabulary_of(published) == VOCABULARY
    loaded = AutoTokenizer.from_pretrained(folder)
    assert (loaded.tokenize("Z") == ["z"]) is tokenizer_files.is_lowercase(published)
