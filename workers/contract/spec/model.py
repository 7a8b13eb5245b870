"""`model`: the sizes of a BERT."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from workers.contract.problems import fault
from workers.contract.sources import MAX_VOCABULARY

from .strict import Positive, Strict

MAX_PARAMETERS = 10**12
"""Far beyond any BERT, and few enough that every size that follows from them is a number that can be stored."""
Layers = Annotated[Positive, Field(le=1_000)]


class Architecture(Strict):
    """The sizes of a BERT."""

    layers: Layers
    """Transformer layers."""
    hidden: Positive
    """Width of the hidden states; a multiple of `heads`."""
    heads: Positive
    """Attention heads of a layer."""
    intermediate: Positive
    """Width of the feed-forward part of a layer."""


PRESETS: Mapping[str, Architecture] = {
    "bert-tiny": Architecture(layers=2, hidden=128, heads=2, intermediate=512),
    "bert-mini": Architecture(layers=4, hidden=256, heads=4, intermediate=1024),
    "bert-small": Architecture(layers=4, hidden=512, heads=8, intermediate=2048),
    "bert-base-uncased": Architecture(layers=12, hidden=768, heads=12, intermediate=3072),
    "bert-large-uncased": Architecture(layers=24, hidden=1024, heads=16, intermediate=4096),
}


class Model(Strict):
    """A preset, its sizes overridden one by one, or all four sizes without a preset."""

    preset: str | None = None
    """bert-tiny, bert-mini, bert-small, bert-base-uncased or bert-large-uncased."""
    layers: Layers | None = None
    """Transformer layers, in place of the preset's."""
    hidden: Positive | None = None
    """Width of the hidden states, in place of the preset's; a multiple of `heads`."""
    heads: Positive | None = None
    """Attention heads of a layer, in place of the preset's."""
    intermediate: Positive | None = None
    """Width of the feed-forward part of a layer, in place of the preset's."""
    max_positions: Positive = 512
    """Longest sequence that the position embedding holds, in tokens."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of hidden states that training sets to zero."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of attention weights that training sets to zero; where it is not given, that of `dropout`."""

    init_from: str | None = None
    """Folder of a BERT as `transformers` saves it, whose weights the model starts with. Its sizes are these, its
    vocabulary is that of `data.vocab`, and heads that it lacks start anew."""

    @field_validator("preset")
    @classmethod
    def _is_known(cls, preset: str | None) -> str | None:
        if preset is not None and preset not in PRESETS:
            raise fault("there is no such preset", f"write one of {', '.join(PRESETS)}, or give the sizes")
        return preset

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        missing = [name for name in Architecture.model_fields if getattr(self, name) is None]
        if self.preset is None and missing:
            raise fault(
                f"has no preset, and {', '.join(missing)} are not given", "name a preset or give all four sizes"
            )
        if self.architecture.hidden % self.architecture.heads:
            raise fault(
                f"hidden {self.architecture.hidden} is not divisible by heads {self.architecture.heads}",
                "make hidden a multiple of heads",
            )
        if (parameters := self._most_parameters()) > MAX_PARAMETERS:
            problem = f"has up to {parameters:,} parameters, and at most {MAX_PARAMETERS:,} are possible"
            raise fault(problem, "lower layers, hidden, intermediate or max_positions")
        return self

    def _most_parameters(self) -> int:
        """Count the weights of all matrices, with the largest vocabulary."""
        sizes = self.architecture
        in_a_layer = 4 * sizes.hidden**2 + 2 * sizes.hidden * sizes.intermediate
        return sizes.layers * in_a_layer + (self.max_positions + MAX_VOCABULARY) * sizes.hidden

    @property
    def architecture(self) -> Architecture:
        """The sizes, after the preset and its overrides."""
        preset = {} if self.preset is None else PRESETS[self.preset].model_dump()
        given = {name: value for name in Architecture.model_fields if (value := getattr(self, name)) is not None}
        return Architecture(**preset | given)
