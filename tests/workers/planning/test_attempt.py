from tests.workers.planning.planned import make_spec
from workers.planning.attempt import Attempt


def attempt(stage: int = 2, **parallel: int) -> Attempt:
    return Attempt(make_spec(8, parallel={"workers": 8} | parallel), 90, 8, stage)


def test_copies_share_the_workers_among_them_and_without_shards_there_is_one_for_each() -> None:
    assert (attempt().replicas, attempt().shards) == (1, 8)
    assert (attempt(replicate=4).replicas, attempt(replicate=4).shards) == (4, 2)
    assert (attempt(0, replicate=4).replicas, attempt(0, replicate=4).shards) == (1, 1)


def test_a_gpu_computes_in_bf16_unless_the_job_or_the_gpu_says_otherwise() -> None:
    assert attempt().compute_bytes == 4
    on_gpu = make_spec(parallel={"workers": 1, "gpus_per_worker": 1})
    assert Attempt(on_gpu, 90, 1, 1).compute_bytes == 2
    assert Attempt(on_gpu, 90, 1, 1, item_bytes=4).compute_bytes == 4
    in_fp32 = make_spec(parallel={"workers": 1, "gpus_per_worker": 1}, precision={"compute": "fp32"})
    assert Attempt(in_fp32, 90, 1, 1).compute_bytes == 4


def test_micro_batches_are_what_a_worker_has_of_a_step() -> None:
    spec = make_spec(4, micro_batches=3)
    assert Attempt(spec, 90, 4, 1).micro_batches(spec.phases[0]) == 3
    assert Attempt(spec, 90, 2, 1).micro_batches(spec.phases[0]) == 6
