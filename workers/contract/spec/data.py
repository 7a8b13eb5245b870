"""`data`: the text and how it becomes samples."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from workers.contract.problems import fault
from workers.contract.sources import MAX_VOCABULARY, SPECIAL_TOKENS

from .strict import Strict


class Data(Strict):
    """The text and how it becomes training samples."""

    corpus: tuple[str, ...] = Field(min_length=1)
    """Files or folders of .txt or .txt.gz on the machine that trains, or `builtin:austen`."""
    vocab: int | str = 30_522
    """A number trains a WordPiece vocabulary of that size from the corpus; text is the path of a vocab.txt."""
    lowercase: bool | Literal["auto"] = "auto"
    """Whether text is read in lower case; `auto`: unless the given vocabulary has upper-case letters."""
    mask_probability: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that the model has to predict."""

    @field_validator("vocab")
    @classmethod
    def _fits_uint16(cls, vocab: int | str) -> int | str:
        if isinstance(vocab, int) and not len(SPECIAL_TOKENS) < vocab <= MAX_VOCABULARY:
            raise fault(
                f"a vocabulary has more than {len(SPECIAL_TOKENS)} and at most {MAX_VOCABULARY} entries",
                "write for example 30522",
            )
        return vocab

    @field_validator("lowercase", mode="before")
    @classmethod
    def _is_auto_or_a_choice(cls, lowercase: object) -> object:
        if lowercase != "auto" and not isinstance(lowercase, bool):
            raise fault("is neither auto, true nor false", "write auto, true or false")
        return lowercase
