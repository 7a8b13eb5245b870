"""BERT's uncased WordPiece vocabulary: trained on text or loaded from a vocab.txt, one token a line."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from .errors import CorpusError

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_SIZE = 65_536  # token shards are uint16
ALPHABET_LIMIT = 1_000  # rarer characters become [UNK], as in BERT's own vocabularies


def tokenizer(tokens: Sequence[str]) -> Tokenizer:
    """Build the tokenizer of a vocabulary; a literal `[MASK]` in the text is text, not the special token."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    built = Tokenizer(models.WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=100))
    built.normalizer = normalizers.BertNormalizer(lowercase=True)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return built


def train(paragraphs: Callable[[], Iterable[str]], size: int) -> list[str]:
    """Train a vocabulary of `size` tokens, fewer where the text is small; the same text gives the same list.

    Args:
        paragraphs: Starts a new pass over the text; three are made.
        size: Number of tokens, special tokens included.
    """
    _check_size(size, "data.vocab")
    alphabet = _alphabet(paragraphs())
    # The trainer numbers continuation pieces (##a) in the order of a randomly seeded hash map, and breaks ties between
    # merges by these numbers. So a first pass learns which pieces there are, and the second gets them in a fixed order.
    unordered = set(_learn(paragraphs(), 0, SPECIAL_TOKENS, alphabet)) - set(SPECIAL_TOKENS)
    pieces = [*SPECIAL_TOKENS, *sorted(unordered, key=lambda piece: (piece.startswith("##"), piece))]
    if size < len(pieces):
        raise CorpusError(f"data.vocab: {size} tokens cannot spell this text; ask for at least {len(pieces)}")
    return _learn(paragraphs(), size, pieces, alphabet)


def load(path: Path) -> list[str]:
    """Read a vocab.txt: at most 65,536 tokens, all different, the five special tokens among them."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: no readable vocab.txt ({error}); correct data.vocab or give a size") from error
    # str.splitlines would also split at U+2028 and its like, which are tokens of BERT's multilingual vocabularies.
    tokens = [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]
    _check_size(len(tokens), str(path))
    if missing := [token for token in SPECIAL_TOKENS if token not in tokens]:
        raise CorpusError(f"{path}: lacks {' '.join(missing)}; give the vocab.txt of a BERT tokenizer")
    if len(set(tokens)) != len(tokens):
        token, times = Counter(tokens).most_common(1)[0]
        raise CorpusError(f"{path}: {token!r} stands on {times} lines; remove the repeats, a token has one number")
    return tokens


def save(tokens: Sequence[str], path: Path) -> None:
    """Write a vocab.txt."""
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8", newline="")


def _check_size(size: int, where: str) -> None:
    if not len(SPECIAL_TOKENS) < size <= MAX_SIZE:
        raise CorpusError(
            f"{where}: a vocabulary of {size:,} tokens; token shards are 16 bits wide, "
            f"so use {len(SPECIAL_TOKENS) + 1} to {MAX_SIZE:,}"
        )


def _alphabet(paragraphs: Iterable[str]) -> list[str]:
    counts: Counter[str] = Counter()
    normalizer = normalizers.BertNormalizer(lowercase=True)
    for paragraph in paragraphs:
        counts.update(normalizer.normalize_str(paragraph))
    by_frequency = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
    return by_frequency[:ALPHABET_LIMIT]


def _learn(paragraphs: Iterable[str], size: int, first: Sequence[str], alphabet: list[str]) -> list[str]:
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(first),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    learner = tokenizer(SPECIAL_TOKENS)
    learner.train_from_iterator(paragraphs, trainer)
    numbers: dict[str, int] = learner.get_vocab()
    return sorted(numbers, key=numbers.__getitem__)
