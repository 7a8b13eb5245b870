"""How a job's ZeRO stage and precision become PyTorch's own."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tests.ranks import run_on_ranks
from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.contract.spec.job import JobSpec
from workers.model.bert import PretrainingBert, build
from workers.model.sharding import compute_dtype, device_of, micro_batch, parallelize, whole
from workers.ranks import process_group

CPU = torch.device("cpu")


def make_spec(zero_stage: int = 2, workers: int = 1, **changes: Any) -> JobSpec:
    return parse_spec(document(Path("/text.txt"), workers, zero_stage) | changes)


def make_model(spec: JobSpec) -> PretrainingBert:
    return build(spec.model, 50, seed=0, pad_id=0)


@pytest.mark.parametrize(
    ("wanted", "dtype"), [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_what_is_computed_in_is_the_jobs_word_and_left_open_it_is_fp32_on_a_cpu(
    wanted: str, dtype: torch.dtype
) -> None:
    spec = make_spec(precision={"compute": wanted})
    assert compute_dtype(spec, CPU) is dtype
    model = make_model(spec)
    with micro_batch(model, spec, 0, is_last=True):
        assert model.bert.pooler.dense(torch.ones(1, 16)).dtype is dtype
    assert model.bert.pooler.dense(torch.ones(1, 16)).dtype is torch.float32


def test_a_worker_takes_the_gpu_of_its_local_rank_where_the_job_asks_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device_of(make_spec()) == CPU
    assert device_of(make_spec(parallel={"workers": 1, "gpus_per_worker": 1})) == torch.device("cuda", 3)


def test_one_worker_shards_over_a_mesh_of_itself_as_many_do_and_at_stage_0_trains_the_model_itself() -> None:
    spec = make_spec()
    sharded, plain = make_model(spec), make_model(spec)
    with process_group(spec):
        assert isinstance(parallelize(sharded, spec, CPU, 2), FSDPModule)
        assert {str(p.placements) for p in sharded.parameters() if isinstance(p, DTensor)} == {"(Shard(dim=0),)"}
        assert parallelize(plain, spec, CPU, 0) is plain
        assert not isinstance(plain, FSDPModule)


class Spread(NamedTuple):
    """How one rank holds a model."""

    is_ddp: bool
    sharded_modules: int
    placements: set[str]
    dtypes: set[torch.dtype]
    elements: int


def spread(zero_stage: int, replicate: int) -> Spread:
    parallel = {"workers": 2, "zero_stage": zero_stage, "replicate": replicate}
    spec = make_spec(parallel=parallel, precision={"compute": "bf16"})
    model = parallelize(make_model(spec), spec, CPU, zero_stage)
    parameters = list(model.parameters())
    parts = [p.to_local() if isinstance(p, DTensor) else p for p in parameters]
    return Spread(
        isinstance(model, DistributedDataParallel),
        sum(isinstance(module, FSDPModule) for module in model.modules()),
        {str(p.placements) for p in parameters if isinstance(p, DTensor)},
        {part.dtype for part in parts},
        sum(part.numel() for part in parts),
    )


def spread_in_every_way() -> list[Spread]:
    return [spread(0, 1), spread(1, 1), spread(3, 1), spread(3, 2)]


def test_stage_0_copies_the_model_and_others_shard_each_layer_whose_parameters_stay_float32() -> None:
    every = sum(p.numel() for p in make_model(make_spec()).parameters())
    copied, first, third, replicated = zip(*run_on_ranks(2, spread_in_every_way), strict=True)
    for rank in copied:
        assert rank == Spread(True, 0, set(), {torch.float32}, every)
    assert first == third  # these differ in when parameters are gathered, not in where they lie
    assert sum(rank.elements for rank in third) == every
    for rank in third:  # two layers, and the model for all the rest
        assert rank[:4] == (False, 3, {"(Shard(dim=0),)"}, {torch.float32})
    for rank in replicated:
        assert rank == Spread(False, 3, {"(Replicate(), Shard(dim=0))"}, {torch.float32}, every)


def differences(zero_stage: int) -> list[str]:
    """Spread a model, copy it, and name each parameter and buffer that is not what it was before."""
    spec = parse_spec(document(Path(), dist.get_world_size(), zero_stage))
    before = build(spec.model, 90, seed=0, pad_id=0)
    module = build(spec.model, 90, seed=0, pad_id=0)
    parallelize(module, spec, device_of(spec), zero_stage)
    sharded = {name for name, p in module.named_parameters() if isinstance(p, DTensor)}
    copy = whole(module)
    assert not copy.training
    assert {name for name, p in module.named_parameters() if isinstance(p, DTensor)} == sharded
    assert bool(sharded) == (zero_stage > 0)
    assert copy.cls.predictions.decoder.weight is copy.bert.embeddings.word_embeddings.weight
    found = dict(copy.named_parameters()) | dict(copy.named_buffers())
    wanted = dict(before.named_parameters()) | dict(before.named_buffers())
    assert found.keys() == wanted.keys()
    return [name for name in wanted if not torch.equal(found[name], wanted[name])]


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_whole_copy_has_every_parameter_and_leaves_the_model_spread(zero_stage: int) -> None:
    assert run_on_ranks(2, differences, zero_stage) == [[], []]


def remembered(spec: JobSpec) -> tuple[set[str], int, int]:
    """Return the names of a model's parameters, how often a layer is computed in a step, and what autograd keeps."""
    model, calls, kept = make_model(spec), list[object](), list[int]()
    parallelize(model, spec, CPU, 0)
    model.bert.encoder.layer[0].attention.register_forward_pre_hook(lambda *_: calls.append(None))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.bert(torch.ones(4, 32, dtype=torch.int64))[0]
    size = sum(kept)
    hidden.sum().backward()
    return {name for name, _ in model.named_parameters()}, len(calls), size


def test_activations_are_forgotten_and_computed_again_where_the_job_says_so() -> None:
    spec = make_spec()
    twice = make_spec(execution={"activation_checkpointing": True})
    with process_group(spec):
        names, calls, size = remembered(spec)
        same_names, calls_twice, less = remembered(twice)
    assert names == same_names
    assert (calls, calls_twice) == (1, 2)
    assert less < size / 3
