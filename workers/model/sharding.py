"""From a ZeRO stage to PyTorch's FSDP2 and DDP."""

import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from workers.contract.spec.job import JobSpec
from workers.planning.stage import zero_stage
from workers.ranks import gather, world_size

from .bert import PretrainingBert


def device_of(spec: JobSpec) -> torch.device:
    """Return the device that this worker computes on: its GPU if the job asks for GPUs."""
    if not spec.parallel.gpus_per_worker:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def compute_dtype(spec: JobSpec, device: torch.device) -> torch.dtype:
    """Resolve `precision.compute`: bf16 by default only where the hardware multiplies in it."""
    wanted = spec.precision.compute
    if wanted == "auto":
        wanted = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def choose_stage(spec: JobSpec, vocab_size: int, device: torch.device) -> int:
    """Return the ZeRO stage of this attempt, the same on every rank. Every rank calls this.

    What counts is the memory of the rank that has least; a CPU's is divided among the ranks of its machine.
    """
    everywhere = gather((socket.gethostname(), _memory_bytes(device)))
    ranks_of = Counter(host for host, _ in everywhere) if device.type == "cpu" else Counter[str]()
    least = min(memory // (ranks_of[host] or 1) for host, memory in everywhere)
    return zero_stage(spec, vocab_size, world_size(), least, compute_dtype(spec, device).itemsize)


def parallelize(model: PretrainingBert, spec: JobSpec, device: torch.device, stage: int) -> nn.Module:
    """Spread the model over the workers, one worker being a mesh of one.

    ZeRO 0 is DDP. Stages 1 and 2 keep the gathered parameters from the first forward pass of a step to its last
    backward pass, stage 3 gathers them twice in every micro-batch. The sharded parameters stay float32 whatever is
    computed in, so they are the master weights.
    """
    if spec.execution.activation_checkpointing:
        _compute_activations_again(model)
    if stage == 0:
        model.to(device)
        # The buffers are constants, so there is nothing in them to be made equal before each forward pass.
        return (
            model
            if world_size() == 1
            else DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)
        )
    dtype = compute_dtype(spec, device)
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    mesh, reshard = _mesh(spec, device), stage == 3
    for layer in model.bert.encoder.layer:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    return model


@contextmanager
def micro_batch(model: nn.Module, spec: JobSpec, stage: int, *, is_last: bool) -> Iterator[None]:
    """Exchange gradients and weights over the workers only when the stage wants it.

    ZeRO 0 and 1 reduce gradients after the last micro-batch. Copies (HSDP) are reduced after the last one at any stage,
    as the sums of their shards. Stages 1 and 2 give the gathered weights up only after the last micro-batch.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last or stage >= 2)
        model.set_requires_all_reduce(is_last)
        model.set_reshard_after_backward(is_last or stage == 3)
    dtype = compute_dtype(spec, device_of(spec))
    casts_itself = isinstance(model, FSDPModule) or dtype == torch.float32
    with (
        model.no_sync() if isinstance(model, DistributedDataParallel) and not is_last else nullcontext(),
        nullcontext() if casts_itself else torch.autocast(device_of(spec).type, dtype),
    ):
        yield


def whole(module: PretrainingBert) -> PretrainingBert:
    """Return a copy of a model that `parallelize` has spread, with all of its parameters, as on a worker alone.

    Every rank calls this. The copy is float32 and evaluates: it has no dropout. It takes the memory of one copy of the
    parameters, or none where they are not sharded: then it shares them.
    """
    with torch.device("meta"):
        copy: PretrainingBert = PretrainingBert(module.config)
    parameters = get_model_state_dict(module, options=StateDictOptions(full_state_dict=True))
    copy.load_state_dict(parameters, assign=True)
    copy.tie_weights()
    for name, buffer in module.named_buffers():  # positions, for instance, of which a state dict knows nothing
        owner, _, leaf = name.rpartition(".")
        copy.get_submodule(owner).register_buffer(leaf, buffer, persistent=False)
    copy.eval()
    return copy


def _compute_activations_again(model: PretrainingBert) -> None:
    """Let each layer remember its input alone, and run forward again in the backward pass with the same dropout.

    Hooks of the layer, such as FSDP2's, stay outside, so weights are not gathered once more. Names do not change.
    """
    for layer in model.bert.encoder.layer:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _memory_bytes(device: torch.device) -> int:
    """Return the memory that is free on a GPU, or a machine's, as far as the process's container may use it."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    written = limit.read_text().strip() if limit.exists() else "max"
    return machine if written == "max" else min(machine, int(written))


def _mesh(spec: JobSpec, device: torch.device) -> DeviceMesh:
    """One dimension of shards, or copies x shards where the job asks for copies (HSDP)."""
    copies, size = spec.parallel.replicate, world_size()
    if copies == 1:
        return init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (copies, size // copies), mesh_dim_names=("replicate", "shard"))
