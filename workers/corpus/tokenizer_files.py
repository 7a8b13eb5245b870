"""The tokenizer of a run as files that `transformers` loads, with the same numbers as the encoder of the corpus.

`tokenizer_class` is PreTrainedTokenizerFast, which takes `tokenizer.json` as it is. BertTokenizer would build the
pipeline anew from the vocabulary, without the cutting of words of more than a hundred characters.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, processors

from workers.contract.manifests import read_shards

from . import vocabulary
from .shards import VOCABULARY
from .vocabulary import CLS, MASK, PAD, SEP, UNK

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


def publish(tokens: Sequence[str], *, lowercase: bool) -> str:
    """Return the `tokenizer.json` of a vocabulary.

    It differs from the encoder in two ways: it puts [CLS] and [SEP] around what it encodes, and it reads special
    tokens that are written in the text, since a model is asked to fill in a [MASK] that way.
    """
    published = vocabulary.tokenizer(tokens, lowercase=lowercase)
    published.add_special_tokens([AddedToken(token, normalized=False) for token in (PAD, UNK, CLS, SEP, MASK)])
    published.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(token, tokens.index(token)) for token in (CLS, SEP)],
    )
    published.decoder = decoders.WordPiece(prefix="##")
    text: str = published.to_str(pretty=True)
    return text


def publish_prepared(corpus: Path) -> str:
    """Return the `tokenizer.json` of a prepared corpus."""
    return publish(vocabulary.load(corpus / VOCABULARY), lowercase=read_shards(corpus).settings.lowercase)


def vocabulary_of(published: str) -> list[str]:
    """Return the tokens of a `tokenizer.json`, in the order of their numbers."""
    numbers: dict[str, int] = Tokenizer.from_str(published).get_vocab()
    return sorted(numbers, key=numbers.__getitem__)


def is_lowercase(published: str) -> bool:
    """Tell whether a `tokenizer.json` reads text in lower case."""
    return bool((json.loads(published)["normalizer"] or {}).get("lowercase"))


def configuration(published: str, max_positions: int) -> str:
    """Return the `tokenizer_config.json` beside a `tokenizer.json`; texts may have `max_positions` tokens."""
    return json.dumps(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_positions,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            # Read by BertTokenizer, where somebody names that class.
            "do_lower_case": is_lowercase(published),
            "pad_token": PAD,
            "unk_token": UNK,
            "cls_token": CLS,
            "sep_token": SEP,
            "mask_token": MASK,
        },
        indent=2,
    )
