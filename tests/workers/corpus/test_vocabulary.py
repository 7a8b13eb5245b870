import gzip
from pathlib import Path

import pytest

from workers.contract.sources import SPECIAL_TOKENS, CorpusError, resolve
from workers.corpus import vocabulary
from workers.corpus.vocabulary import as_bytes, is_cased, load, tokenizer, train


def paragraphs() -> list[str]:
    with gzip.open(resolve("builtin:austen-valid")[0], "rt", encoding="utf-8") as file:
        return [line for line in map(str.strip, file) if line]


def test_training_gives_the_size_asked_for_and_the_special_tokens_first() -> None:
    tokens = train(paragraphs, 400)
    assert len(tokens) == len(set(tokens)) == 400
    assert tuple(tokens[:5]) == SPECIAL_TOKENS == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert {"a", "##a", "the", "mr"} <= set(tokens)
    assert tokens == [token.lower() if token not in SPECIAL_TOKENS else token for token in tokens]


def test_training_gives_the_same_vocabulary_each_time() -> None:
    # The trainer's hash maps are seeded anew for each training: unordered pieces would differ already here.
    assert train(paragraphs, 400) == train(paragraphs, 400) == train(paragraphs, 400)


def test_a_size_that_cannot_spell_the_text_is_refused_with_the_smallest_that_can() -> None:
    with pytest.raises(CorpusError, match=r"30 tokens cannot spell this text; ask for at least (\d+)") as refusal:
        train(paragraphs, 30)
    least = int(str(refusal.value).rsplit(maxsplit=1)[-1])
    assert len(train(paragraphs, least)) == least


@pytest.mark.parametrize("size", [5, 65_537])
def test_a_size_that_token_shards_cannot_hold_is_refused(size: int) -> None:
    with pytest.raises(CorpusError, match=r"use 6 to 65,536"):
        train(paragraphs, size)


def test_the_alphabet_is_bound_by_the_size_asked_for_alone() -> None:
    characters = [chr(0x4E00 + i) for i in range(6000)]
    tokens = train(lambda: ["".join(characters)] * 2, 21_128)
    assert set(tokens) == {*SPECIAL_TOKENS, *characters}


def test_a_size_that_spells_too_little_of_a_huge_alphabet_is_refused_with_one_that_spells_it() -> None:
    characters = [chr(0x4E00 + i) for i in range(3000)]
    text = ["".join(characters)] * 2
    with pytest.raises(CorpusError, match="1500 tokens cannot spell this text; ask for at least 3005"):
        train(lambda: text, 1500)
    assert len(train(lambda: text, 2900)) == 2900
    assert set(train(lambda: text, 3005)) == {*SPECIAL_TOKENS, *characters}


def test_of_a_huge_alphabet_the_most_frequent_characters_are_kept() -> None:
    frequent = [chr(0x4E00 + i) for i in range(400)]
    rare = [chr(0x5E00 + i) for i in range(800)]
    tokens = train(lambda: ["cab " * 9, *frequent * 20, *rare], 900)
    assert len(tokens) == 900
    assert {"c", "##a", "##b", *frequent, *rare[:480]} <= set(tokens)
    assert rare[-1] not in tokens


def test_characters_beyond_the_usual_alphabet_take_no_place_from_words_but_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rare = [chr(0x4E00 + i) for i in range(10)]
    words = ["tea", "milk", "bread", "butter", "honey"]
    text = [" ".join(words * 5_000), " ".join(rare)]
    monkeypatch.setattr(vocabulary, "USUAL", 20)
    assert {*words} <= set(train(lambda: text, 60))
    assert {*words, *rare} <= set(train(lambda: text, 200))


def test_a_saved_vocabulary_loads_as_it_was_even_with_odd_line_separators(tmp_path: Path) -> None:
    tokens = [*SPECIAL_TOKENS, "a", "\u2028", "##é", "\x85"]
    (tmp_path / "vocab.txt").write_bytes(as_bytes(tokens))
    assert load(tmp_path / "vocab.txt") == tokens


def test_a_vocabulary_file_may_have_windows_newlines(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("\r\n".join([*SPECIAL_TOKENS, "word", ""]).encode())
    assert load(tmp_path / "vocab.txt") == [*SPECIAL_TOKENS, "word"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["[PAD]", "[UNK]", "[CLS]", "a", "b", "c"], r"lacks \[SEP\] \[MASK\]; give the vocab.txt of a BERT"),
        ([*SPECIAL_TOKENS, "a", "b", "a"], r"'a' stands on 2 lines"),
        ([*SPECIAL_TOKENS, *map(str, range(65_532))], r"65,537 tokens; token shards are 16 bits wide"),
        ([], r"a vocabulary of 1 token;"),
        (["\ufeff[PAD]", *SPECIAL_TOKENS[1:], "a"], r"begins with a byte order mark; save it as UTF-8 without one"),
        (
            [*SPECIAL_TOKENS, "the\t1423", "a\t97"],
            r"line 6, 'the\\t1423', holds more than a token; remove the counts",
        ),
        ([*SPECIAL_TOKENS, "the 1423"], r"line 6, 'the 1423', holds more than a token"),
    ],
)
def test_a_vocabulary_file_that_cannot_serve_is_refused(tmp_path: Path, lines: list[str], complaint: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(CorpusError, match=complaint) as refusal:
        load(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("content", [None, b"[PAD]\n\xff\n"])
def test_an_unreadable_vocabulary_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"no readable vocab\.txt.*correct data\.vocab"):
        load(path)


def test_special_tokens_written_in_the_text_stay_text() -> None:
    tokens = [*SPECIAL_TOKENS, "[", "]", "mask", "über", "uber"]
    encoding = tokenizer(tokens, lowercase=True).encode("[MASK] Über", add_special_tokens=False)
    assert encoding.tokens == ["[", "mask", "]", "uber"]


@pytest.mark.parametrize("length", [100, 101, 1_000])
def test_what_has_no_blank_for_more_than_a_hundred_characters_is_read_whole(length: int) -> None:
    encoder = tokenizer([*SPECIAL_TOKENS, "ก", "##ก"], lowercase=True)
    tokens = encoder.encode("ก" * length, add_special_tokens=False).tokens
    assert "".join(token.removeprefix("##") for token in tokens) == "ก" * length


def test_upper_case_is_kept_where_the_vocabulary_has_it() -> None:
    tokens = [*SPECIAL_TOKENS, "Über", "uber"]
    assert tokenizer(tokens, lowercase=False).encode("Über", add_special_tokens=False).tokens == ["Über"]
    assert tokenizer(tokens, lowercase=True).encode("Über", add_special_tokens=False).tokens == ["uber"]


@pytest.mark.parametrize(
    ("tokens", "cased"),
    [
        (["the", "##ing", "é"], False),
        (["the", "The"], True),
        (["the", "##É"], True),
        (["the", "[SPEAKER]", "<S>", "[unused0]"], False),
        (["the", "\u211d", "中"], False),
        (["[", "]", "A"], True),
    ],
)
def test_a_vocabulary_is_cased_if_a_letter_outside_special_tokens_is_upper_case(tokens: list[str], cased: bool) -> None:
    assert is_cased([*SPECIAL_TOKENS, *tokens]) is cased
