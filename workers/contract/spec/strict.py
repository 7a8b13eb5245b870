"""What every section of a specification shares."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MOST = 2**31 - 1  # beyond any job, and sums and products of it stay within what a database holds
Count = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[Count, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Unknown keys are refused, values are frozen, text is not taken for numbers."""

    # The text under a field is its description in the API's schema.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
