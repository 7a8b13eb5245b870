import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.corpus.sentences import STOPS_OF_OTHER_SCRIPTS, split_sentences


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("It rained. She stayed.", ["It rained.", "She stayed."]),
        ("Mr. Elton met Dr. J. R. Watson. They spoke.", ["Mr. Elton met Dr. J. R. Watson.", "They spoke."]),
        ('"Oh!" cried she. (He nodded.) "No?"', ['"Oh!" cried she.', "(He nodded.)", '"No?"']),
        ("“Stop!” “Why?” he asked.", ["“Stop!”", "“Why?” he asked."]),
        ("It was I. He knew… Did he?", ["It was I.", "He knew…", "Did he?"]),
        (
            "See Fig. 3 of 2.5, e.g. There. 12 men came.",
            ["See Fig. 3 of 2.5, e.g. There.", "12 men came."],
        ),
        ("Was he late? yes, and so... on.", ["Was he late? yes, and so... on."]),
        ("Élan. Über alles.", ["Élan.", "Über alles."]),
        ("no stop at all", ["no stop at all"]),
        ("I can't. You don't. It was Tom's. He left.", ["I can't.", "You don't.", "It was Tom's.", "He left."]),
        (
            "It is Tom\u2019s. He paid AT&T. Room 5B. An e-X. Yes.",
            ["It is Tom\u2019s.", "He paid AT&T.", "Room 5B.", "An e-X.", "Yes."],
        ),
        ("So said J.-P. Sartre and 'J. Doe'.", ["So said J.-P. Sartre and 'J. Doe'."]),
        (
            "it rained, mr. elton said. was it i. he asked j. smith.",
            ["it rained, mr. elton said.", "was it i.", "he asked j. smith."],
        ),
        ("他走了。“走！”他说！！什么？好", ["他走了。", "“走！”", "他说！！", "什么？", "好"]),
        ("東京です。「はい。」次", ["東京です。", "「はい。」", "次"]),
        ("你好!他走了?对.我也是", ["你好!", "他走了?", "对.", "我也是"]),
        ("价格3.5元。iPhone很贵。", ["价格3.5元。", "iPhone很贵。"]),
        ("वह गया। क्या हुआ? राम आया ॥ हाँ", ["वह गया।", "क्या हुआ?", "राम आया ॥", "हाँ"]),
        ("هل جاء؟ نعم. و. ثم ذهب", ["هل جاء؟", "نعم.", "و.", "ثم ذهب"]),
        ("وہ گیا۔ پھر آیا۔", ["وہ گیا۔", "پھر آیا۔"]),
        ("Եկավ։ Գնաց։", ["Եկավ։", "Գնաց։"]),
        ("ሰላም። ደህና።", ["ሰላም።", "ደህና።"]),
        ("  ", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(paragraph: str, sentences: list[str]) -> None:
    assert split_sentences(paragraph) == sentences


@given(st.text(alphabet="aB1. !?\"'()\u201c\u201d\u2026\u00a0Mr\u3002\uff1f\u300d\u4f60\u0964", max_size=80))
def test_splitting_loses_nothing_but_blanks(paragraph: str) -> None:
    sentences = split_sentences(paragraph)
    assert "".join("".join(sentences).split()) == "".join(paragraph.split())
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)


@pytest.mark.parametrize("stop", "".join(STOPS_OF_OTHER_SCRIPTS.values()))
def test_every_stop_of_another_script_ends_a_sentence_with_or_without_a_blank(stop: str) -> None:
    letter = "\u05d0"  # of a script without cases
    assert split_sentences(f"{letter}{stop} {letter}") == [f"{letter}{stop}", letter]
    assert split_sentences(f"{letter}{stop}{letter}") == [f"{letter}{stop}", letter]
