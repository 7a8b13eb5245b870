"""What every section of a specification shares."""

import re
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

MOST = 2**31 - 1  # beyond any job, and sums and products of it stay within what a database holds
Count = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[Count, Field(ge=1)]
_POWER = re.compile(r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)[eE][-+]?\d+")
"""Numbers as YAML 1.2 has them, such as 1e-3, which PyYAML reads as text: it follows 1.1, with its dot and sign."""
Fraction = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Unknown keys are refused, values are frozen, text is not taken for numbers."""

    # The text under a field is its description in the API's schema.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would turn into a number or a switch: text, and true and false for 1 and 0."""
        kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
        is_text = isinstance(value, str) and str not in kinds and not (float in kinds and _POWER.fullmatch(value))
        if kinds & {int, float} and (is_text or isinstance(value, bool)):
            raise PydanticKnownError("float_parsing" if float in kinds else "int_parsing")
        if kinds - {type(None)} == {bool} and not isinstance(value, bool):
            raise PydanticKnownError("bool_type")
        return value


def _kinds(annotation: object) -> list[object]:
    """Flatten an annotation into what it is made of; the values of a Literal count as text or numbers."""
    parts = get_args(annotation)
    if not parts:
        return [type(annotation) if isinstance(annotation, str | int) else annotation]
    return [kind for part in parts for kind in _kinds(part)]
