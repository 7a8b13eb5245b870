"""Compiling the parts of the model that compute.

Parts, not the whole: FSDP2 gathers the weights of a part in a hook before its forward, which cannot be compiled, so
what is compiled begins behind the hook. All layers share one graph: however many there are, one is compiled.
"""

import torch
from torch._dynamo import config

from workers.contract.spec.job import JobSpec

from .bert import PretrainingBert

_GRAPHS_PER_PHASE = 4
"""At most; there is one, and another where a batch needs more than the usual room."""


def compiles(spec: JobSpec, device: torch.device) -> bool:
    """Resolve `execution.compile`: by default on GPUs alone. On a CPU it takes a minute and gains little."""
    return spec.execution.compile == "on" or (spec.execution.compile == "auto" and device.type == "cuda")


def compile_parts(module: PretrainingBert, phases: int, backend: str = "inductor") -> None:
    """Compile the embeddings, the layers, and the heads with their losses, each at its first call.

    Every phase gets graphs of its own, in which the sizes of its batches are constants. Call this before the model is
    spread over workers.
    """
    config.recompile_limit = max(config.recompile_limit, phases * _GRAPHS_PER_PHASE)
    for part in (module.bert.embeddings, *module.bert.encoder.layer):
        part.forward = torch.compile(part.forward, fullgraph=True, dynamic=False, backend=backend)
    module.sums = torch.compile(  # type: ignore[method-assign] # as the forward of the others
        module.sums, fullgraph=True, dynamic=False, backend=backend
    )
