"""Paragraphs → sentences."""

import re

# The word before the dot, lower-case, that seldom ends a sentence. Words that often do ("etc", "no") are left out.
_TITLES = "mr mrs ms dr st sr jr prof rev hon esq gen col capt lt sgt maj cpl gov sen rep pres messrs mme mlle"
_REFERENCES = "vs cf e.g i.e viz vol ch pp fig figs eq approx dept est inc ltd co corp bros u.s u.k a.m p.m"
_MONTHS = "jan feb mar apr jun jul aug sept oct nov dec"
ABBREVIATIONS = frozenset(f"{_TITLES} {_REFERENCES} {_MONTHS}".split())

# No abbreviation ends with one of these, and in some of these scripts no blank follows.
STOPS_OF_OTHER_SCRIPTS = {
    "Chinese and Japanese": "\u3002\uff61\uff01\uff1f",
    "Indic": "\u0964\u0965",
    "Arabic and Urdu": "\u061f\u06d4",
    "Syriac": "\u0700",
    "Armenian": "\u0589",
    "Ethiopic": "\u1362\u1367\u1368",
    "Burmese": "\u104b",
    "Khmer": "\u17d4\u17d5",
    "Tibetan": "\u0f0d",
    "Mongolian": "\u1803\u1809",
}
_STOPS = "".join(STOPS_OF_OTHER_SCRIPTS.values())
# What may close a quotation after a stop; what may open the next one.
_CLOSE, _OPEN = r"""["'”\u2019»)\]\u300d\u300f\u3011\u300b\u3009\uff09]*""", r"""["'“\u2018«(\[—_]*"""
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u9fff"
# One class of characters leads the expression: the search skips all others at once.
BORDER = re.compile(
    rf"([.!?…{_STOPS}])(?:"
    rf"(?<=[{_STOPS}]){_CLOSE}\s*(?=[^\s.!?…{_STOPS}])"
    rf"|(?<=[{_IDEOGRAPH}].){_CLOSE}(?=[{_IDEOGRAPH}])"
    rf"|{_CLOSE}\s+(?={_OPEN}(\w)))"
)
LAST_WORD = re.compile(r"[^\W\d_](?:[\w.]*[^\W\d_])?$")
# The letter of "5B", "Tom's", "AT&T" and "X-ray-T" belongs to a word.
PART_OF_A_WORD = re.compile(r"(?:\d|\w['\u2019&-])$")


def split_sentences(paragraph: str) -> list[str]:
    """Split a paragraph after the stops of its script, but not after abbreviations and initials.

    A stop before a lower-case letter ends no sentence, unless the whole paragraph is in lower case.
    """
    sentences, start, is_lower = [], 0, paragraph.islower()
    for border in BORDER.finditer(paragraph):
        first = border[2]
        if first and (
            (first.islower() and not is_lower)
            or (border[1] == "." and _abbreviates(paragraph[max(start, border.start() - 24) : border.start()]))
        ):
            continue
        sentences.append(paragraph[start : border.end()].strip())
        start = border.end()
    if rest := paragraph[start:].strip():
        sentences.append(rest)
    return sentences


def _abbreviates(before: str) -> bool:
    # No abbreviation is longer than the 24 characters that are looked at, or has a blank in it.
    if not before or before[-1].isspace():
        return False
    last = before.rsplit(None, 1)[-1]
    word = LAST_WORD.search(last)
    if word is None:
        return False
    if len(word[0]) > 1:
        return word[0].lower() in ABBREVIATIONS
    return _is_initial(word[0]) and not PART_OF_A_WORD.search(last[: word.start()])


def _is_initial(letter: str) -> bool:
    # A script without upper case has no initials of one letter; "I", "i" and "a" are words.
    return letter not in "Iia" and letter.lower() != letter.upper()
