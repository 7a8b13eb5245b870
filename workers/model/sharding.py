"""From a ZeRO stage to PyTorch's FSDP2 and DDP."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from workers.contract.spec.job import JobSpec
from workers.ranks import world_size

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


def parallelize(model: PretrainingBert, spec: JobSpec, device: torch.device) -> nn.Module:
    """Spread the model over the workers.

    ZeRO 0 is DDP. Stages 1 and 2 keep the gathered parameters between forward and backward, stage 3 gathers them
    twice. The sharded parameters stay float32 whatever is computed in, so they are the master weights.
    """
    model.to(device)
    if world_size() == 1:
        return model
    if spec.parallel.zero_stage == 0:
        return DistributedDataParallel(model)
    dtype = compute_dtype(spec, device)
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    mesh, reshard = _mesh(spec, device), spec.parallel.zero_stage == 3
    for layer in model.bert.encoder.layer:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    return model


@contextmanager
def micro_batch(model: nn.Module, spec: JobSpec, *, is_last: bool) -> Iterator[None]:
    """Reduce gradients over the workers only when the stage wants it: ZeRO 0 and 1 wait for the last micro-batch."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last or spec.parallel.zero_stage >= 2)
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


def _mesh(spec: JobSpec, device: torch.device) -> DeviceMesh:
    """One dimension of shards, or copies x shards where the job asks for copies (HSDP)."""
    copies, size = spec.parallel.replicate, world_size()
    if copies == 1:
        return init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (copies, size // copies), mesh_dim_names=("replicate", "shard"))
