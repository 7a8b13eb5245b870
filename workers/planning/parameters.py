"""The parameters of a job's BERT: names, shapes, and how they are cut into shards."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from workers.contract.spec.job import JobSpec


class Parameter(NamedTuple):
    """One tensor of the model."""

    name: str
    shape: tuple[int, ...]
    is_trained: bool = True

    @property
    def elements(self) -> int:
        """Elements of the whole tensor."""
        return math.prod(self.shape)

    def shard(self, shards: int) -> int:
        """Return the elements of the first shard. It has whole rows, and no other shard has more of them."""
        return -(-self.shape[0] // shards) * math.prod(self.shape[1:])


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters as FSDP2 gathers and reduces them: each layer together, and all the rest together."""

    layers: int
    layer: tuple[Parameter, ...]
    """Of one layer; the others are the same."""
    outside: tuple[Parameter, ...]
    """Embeddings, pooler and heads. The projection onto the vocabulary is the embedding, and counts once."""

    def all(self) -> Iterator[Parameter]:
        """Yield the tensors of the whole model."""
        for number in range(self.layers):
            for each in self.layer:
                yield each._replace(name=f"bert.encoder.layer.{number}.{each.name}")
        yield from self.outside

    @property
    def elements(self) -> int:
        """Parameters of the whole model."""
        return self.layers * _elements(self.layer) + _elements(self.outside)

    @property
    def tensors(self) -> int:
        """Tensors of the whole model."""
        return self.layers * len(self.layer) + len(self.outside)

    def shard(self, shards: int) -> int:
        """Return the elements of a rank's shards; a smaller one is filled up to the size of the first."""
        of_layer, of_rest = (sum(each.shard(shards) for each in some) for some in (self.layer, self.outside))
        return self.layers * of_layer + of_rest

    def trained(self) -> "Parameters":
        """Return those that are not frozen."""
        layer, outside = (tuple(each for each in some if each.is_trained) for some in (self.layer, self.outside))
        return Parameters(self.layers, layer, outside)

    def with_layers(self, layers: int) -> "Parameters":
        """Return the parameters of so many layers and of what is outside of them."""
        return Parameters(layers, self.layer, self.outside)


def parameters(spec: JobSpec, vocab_size: int) -> Parameters:
    """Return the parameters of a job's model; without a next-sentence task, what it alone trains is frozen."""
    sizes, nsp = spec.model.architecture, spec.data.next_sentence
    hidden, inner = sizes.hidden, sizes.intermediate
    layer = [
        *(_dense(f"attention.self.{name}", hidden, hidden) for name in ("query", "key", "value")),
        _dense("attention.output.dense", hidden, hidden),
        _norm("attention.output.LayerNorm", hidden),
        _dense("intermediate.dense", hidden, inner),
        _dense("output.dense", inner, hidden),
        _norm("output.LayerNorm", hidden),
    ]
    outside = [
        [
            Parameter("bert.embeddings.word_embeddings.weight", (vocab_size, hidden)),
            Parameter("bert.embeddings.position_embeddings.weight", (spec.model.max_positions, hidden)),
            Parameter("bert.embeddings.token_type_embeddings.weight", (2, hidden)),
        ],
        _norm("bert.embeddings.LayerNorm", hidden),
        _dense("bert.pooler.dense", hidden, hidden, is_trained=nsp),
        [Parameter("cls.predictions.bias", (vocab_size,))],
        _dense("cls.predictions.transform.dense", hidden, hidden),
        _norm("cls.predictions.transform.LayerNorm", hidden),
        _dense("cls.seq_relationship", hidden, 2, is_trained=nsp),
    ]
    return Parameters(sizes.layers, *(tuple(each for part in parts for each in part) for parts in (layer, outside)))


def _elements(some: Iterable[Parameter]) -> int:
    return sum(each.elements for each in some)


def _dense(name: str, inputs: int, outputs: int, *, is_trained: bool = True) -> list[Parameter]:
    weight = Parameter(f"{name}.weight", (outputs, inputs), is_trained)
    return [weight, Parameter(f"{name}.bias", (outputs,), is_trained)]


def _norm(name: str, hidden: int) -> list[Parameter]:
    return [Parameter(f"{name}.weight", (hidden,)), Parameter(f"{name}.bias", (hidden,))]
