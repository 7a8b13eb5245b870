"""`data`: the text and how it becomes samples."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from workers.contract.problems import fault
from workers.contract.sources import MAX_VOCABULARY, SPECIAL_TOKENS

from .strict import Strict


class Data(Strict):
    """The text and how it becomes training samples."""

    corpus: tuple[str, ...] = Field(min_length=1)
    """Files, folders or globs of text on the machine that trains, URLs of other file systems (s3://, hf://datasets/ and
    so on), or `builtin:austen`. Text is .txt or .jsonl, also as .gz or .zst, or .parquet."""
    validation: tuple[str, ...] | float | None = None
    """Text kept from training, by which the model is judged: files or folders as in `corpus`, or the share of the
    corpus's documents that is split off. A document's own words decide, so they are always the same ones."""
    vocab: int | str = 30_522
    """A number trains a WordPiece vocabulary of that size from the corpus; text is the path of a vocab.txt,
    or of a folder with one or a tokenizer.json. Where `model.init_from` is given, the default is that folder."""
    lowercase: bool | Literal["auto"] = "auto"
    """Whether text is read in lower case; `auto`: unless the given vocabulary has upper-case letters. Lower case also
    removes accents and all other combining marks, as BERT does: for Thai and the scripts of India, whose vowels are
    such marks, write false."""
    encoding_errors: Literal["refuse", "replace"] = "refuse"
    """Whether bytes that are not UTF-8 are refused, with the file and the byte, or each read as U+FFFD."""
    text_column: Annotated[str, Field(min_length=1)] = "text"
    """Where the text stands in the objects of a .jsonl file and in the rows of a .parquet file."""
    deduplicate: bool = False
    """Whether a paragraph that stands earlier in the text, to the letter, is left out."""
    mask_probability: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that the model has to predict."""
    whole_word: bool = False
    """Whether all pieces of a word are masked together."""
    next_sentence: bool = True
    """Whether a sample has two segments, and the model predicts if the second one follows the first in the text."""
    packing: bool = False
    """Whether a row holds several samples, which do not see each other."""
    short_sequences: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the samples that are cut to a random length; NVIDIA's is 0.1."""

    @field_validator("vocab")
    @classmethod
    def _fits_uint16(cls, vocab: int | str) -> int | str:
        if isinstance(vocab, int) and not len(SPECIAL_TOKENS) < vocab <= MAX_VOCABULARY:
            raise fault(
                f"a vocabulary has more than {len(SPECIAL_TOKENS)} and at most {MAX_VOCABULARY} entries",
                "write for example 30522",
            )
        return vocab

    @field_validator("validation", mode="before")
    @classmethod
    def _is_files_or_a_share(cls, validation: object) -> object:
        remedy = "name files in a list, such as [builtin:austen-valid], or write a share such as 0.01"
        if isinstance(validation, list | tuple):
            if not validation:
                raise fault("is empty: nothing would be held out", remedy)
            return validation
        if validation is None or (isinstance(validation, float) and 0 < validation < 1):
            return validation
        raise fault("is neither a list of files nor a share between 0 and 1", remedy)

    @field_validator("lowercase", mode="before")
    @classmethod
    def _is_auto_or_a_choice(cls, lowercase: object) -> object:
        if lowercase != "auto" and not isinstance(lowercase, bool):
            raise fault("is neither auto, true nor false", "write auto, true or false")
        return lowercase
