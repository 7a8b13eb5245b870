"""BERT's WordPiece vocabulary: trained on text or loaded from a vocab.txt, one token a line."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from workers.contract.problems import counted
from workers.contract.sources import MAX_VOCABULARY, SPECIAL_TOKENS, CorpusError, vocabulary_file

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS
PASSES = 3
"""How often training reads the text."""
USUAL, COMMON = 1_000, 0.9999
"""An alphabet has this many characters, or as many as make up this part of the text. Rarer ones get what is left."""
LEAST_SPELT = 0.9
"""The part of a text that a vocabulary must be able to spell."""
_LONGEST_WORD = 100
"""Characters; WordPiece makes one [UNK] of a longer word. Thai and Burmese put no blanks between words."""
_SPECIAL = re.compile(r"[\[<].*[\]>]")
_WITH_COUNT = re.compile(r"\S+(?:\t.*| -?\d[\d.]*)")


def tokenizer(tokens: Sequence[str], *, lowercase: bool) -> Tokenizer:
    """Build the tokenizer of a vocabulary; a literal `[MASK]` in the text is text, not the special token.

    What has no blank for more than a hundred characters is cut into words of a hundred.
    """
    vocabulary = {token: i for i, token in enumerate(tokens)}
    built = Tokenizer(models.WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=_LONGEST_WORD))
    built.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.FixedLength(length=_LONGEST_WORD)]
    )
    return built


def is_cased(tokens: Iterable[str]) -> bool:
    """Tell whether a vocabulary has upper-case letters, other than in special tokens such as [MASK] and <S>."""
    return any(token != token.lower() for token in tokens if not _SPECIAL.fullmatch(token))


def train(paragraphs: Callable[[], Iterable[str]], size: int, *, lowercase: bool = True) -> list[str]:
    """Train a vocabulary of `size` tokens, fewer where the text is small; the same text gives the same list.

    Args:
        paragraphs: Starts a new pass over the text; three are made.
        size: Number of tokens, special tokens included.
        lowercase: Whether the text is read in lower case.
    """
    _check_size(size, "data.vocab")
    counts = _characters(paragraphs(), lowercase=lowercase)
    if not counts:
        return list(SPECIAL_TOKENS)
    frequent = sorted(counts, key=lambda c: (-counts[c], c))[:MAX_VOCABULARY]
    # The trainer numbers continuation pieces (##a) in the order of a randomly seeded hash map, and breaks ties between
    # merges by these numbers. So a first pass learns which pieces there are, and the second gets them in a fixed order.
    known = set(_learn(paragraphs(), 0, SPECIAL_TOKENS, frequent, lowercase=lowercase))
    forms = [[form for form in (c, f"##{c}") if form in known] for c in frequent]
    places = list(accumulate((len(each) for each in forms), initial=len(SPECIAL_TOKENS)))
    parts = list(accumulate((counts[c] / counts.total() for c in frequent), initial=0.0))
    spelt = max(n for n in range(len(places)) if places[n] <= size)
    wanted = min(len(frequent), max(USUAL, next(n for n, part in enumerate(parts) if part >= min(COMMON, parts[-1]))))
    if parts[spelt] < LEAST_SPELT:
        raise CorpusError(f"data.vocab: {size} tokens cannot spell this text; ask for at least {places[wanted]}")
    alphabet = frequent[: min(spelt, wanted)]
    pieces = sorted((form for each in forms[: len(alphabet)] for form in each), key=lambda p: (p.startswith("##"), p))
    tokens = _learn(paragraphs(), size, [*SPECIAL_TOKENS, *pieces], alphabet, lowercase=lowercase)
    rare = [form for each in forms[len(alphabet) :] for form in each]
    return tokens + rare[: size - len(tokens)]


def load(path: Path) -> list[str]:
    """Read a vocab.txt, or that of a folder, which may have a tokenizer.json instead.

    Raises:
        CorpusError: it has more than 65,536 tokens, some twice, or lacks one of the five special tokens.
    """
    path = (vocabulary_file(path) or path) if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: no readable vocab.txt ({error}); correct data.vocab or give a size") from error
    tokens = _of_tokenizer(path, text) if path.suffix == ".json" else _lines(path, text)
    _check_size(len(tokens), str(path))
    for number, token in enumerate(tokens, start=1):
        if _WITH_COUNT.fullmatch(token):
            raise CorpusError(f"{path}: line {number}, {token!r}, holds more than a token; remove the counts")
    if missing := [token for token in SPECIAL_TOKENS if token not in tokens]:
        raise CorpusError(f"{path}: lacks {' '.join(missing)}; give the vocab.txt of a BERT tokenizer")
    if len(set(tokens)) != len(tokens):
        token, times = Counter(tokens).most_common(1)[0]
        raise CorpusError(f"{path}: {token!r} stands on {times} lines; remove the repeats, a token has one number")
    return tokens


def _lines(path: Path, text: str) -> list[str]:
    if text.startswith("\ufeff"):
        raise CorpusError(f"{path}: begins with a byte order mark; save it as UTF-8 without one")
    # str.splitlines would also split at U+2028 and its like, which are tokens of BERT's multilingual vocabularies.
    return [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]


def _of_tokenizer(path: Path, text: str) -> list[str]:
    try:
        numbers: dict[str, int] = Tokenizer.from_str(text).get_vocab()
    except Exception as error:  # tokenizers raises nothing more special
        raise CorpusError(f"{path}: no tokenizer ({error}); give the vocab.txt of a BERT tokenizer") from error
    tokens = sorted(numbers, key=numbers.__getitem__)
    if [numbers[token] for token in tokens] != list(range(len(tokens))):
        raise CorpusError(f"{path}: its tokens are not numbered from 0 without gaps; give a vocab.txt")
    return tokens


def as_bytes(tokens: Sequence[str]) -> bytes:
    """Return the content of a vocab.txt."""
    return "".join(f"{token}\n" for token in tokens).encode()


def _check_size(size: int, where: str) -> None:
    if not len(SPECIAL_TOKENS) < size <= MAX_VOCABULARY:
        raise CorpusError(
            f"{where}: a vocabulary of {counted(size, 'token')}; token shards are 16 bits wide, "
            f"so use {len(SPECIAL_TOKENS) + 1} to {MAX_VOCABULARY:,}"
        )


def _characters(paragraphs: Iterable[str], *, lowercase: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    for paragraph in paragraphs:
        counts.update(normalizer.normalize_str(paragraph))
    return Counter({c: count for c, count in counts.items() if not c.isspace()})


def _learn(
    paragraphs: Iterable[str], size: int, first: Sequence[str], alphabet: list[str], *, lowercase: bool
) -> list[str]:
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(first),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    learner = tokenizer(SPECIAL_TOKENS, lowercase=lowercase)
    learner.train_from_iterator(paragraphs, trainer)
    numbers: dict[str, int] = learner.get_vocab()
    return sorted(numbers, key=numbers.__getitem__)
