"""The parameters of BERT as an optimizer sees them: shapes, weights and gradients, whole or in shards."""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor

MODELS = {"bert-tiny": (2, 128), "bert-base": (12, 768), "bert-large": (24, 1024)}
"""Layers and hidden size; the vocabulary has 30,522 words."""


def shapes(model: str) -> list[tuple[int, ...]]:
    """Return the parameters of BertForPreTraining with its tied decoder."""
    layers, h = MODELS[model]
    norm = [(h,), (h,)]
    layer = [*[(h, h), (h,)] * 4, *norm, (4 * h, h), (4 * h,), (h, 4 * h), (h,), *norm]
    embeddings, heads = (
        [(30522, h), (512, h), (2, h), *norm],
        [(h, h), (h,), (h, h), (h,), *norm, (30522,), (2, h), (2,)],
    )
    return [*embeddings, *layer * layers, *heads]


def count(model: str) -> int:
    """Return the elements of all tensors."""
    return sum(torch.Size(shape).numel() for shape in shapes(model))


def make_parameters(model: str, device: str = "cpu", mesh: DeviceMesh | None = None) -> list[nn.Parameter]:
    """Return float32 parameters with gradients, the same for every caller.

    With a mesh of one dimension they are DTensors cut along their rows, as `fully_shard` hands them to an optimizer.
    """
    generator = torch.Generator(device).manual_seed(0)

    def normal(shape: tuple[int, ...], size: float) -> Tensor:
        whole = torch.randn(shape, generator=generator, device=device).mul_(size)
        # Every rank has made the same numbers, so none has to send them.
        return distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None) if mesh else whole

    parameters = [nn.Parameter(normal(shape, 0.02)) for shape in shapes(model)]
    for parameter in parameters:
        parameter.grad = normal(tuple(parameter.shape), 1e-3)
    return parameters
