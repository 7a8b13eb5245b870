"""The traffic of a step beside what torch dispatches on real ranks, and on a thousand that are made up."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor.debug import CommDebugMode

from benchmarks.communication import one_of
from benchmarks.exchanges import collectives, summed
from benchmarks.steps import first_phase_step, make_worker
from tests.ranks import run_on_ranks
from tests.workers.planning.planned import make_spec
from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.contract.spec.job import JobSpec
from workers.corpus.prepare import prepare
from workers.planning.attempt import Attempt
from workers.planning.traffic import COUNTS, Exchange, traffic
from workers.samples.dataset import open_phase
from workers.samples.room import room_of
from workers.training.feeding import draw_share, split

VOCABULARY = 90
Summed = dict[tuple[str, int], tuple[int, int]]


def planned(spec: JobSpec, workers: int, stage: int) -> Summed:
    """Return what is planned for the step itself; the counts are exchanged before it."""
    exchanges = traffic(Attempt(spec, VOCABULARY, workers, stage), spec.phases[0])
    found: Summed = {}
    for each in (each for each in exchanges if each.of != COUNTS):
        calls, size = found.get((each.collective, each.ranks), (0, 0))
        found[each.collective, each.ranks] = (calls + (each.calls or 1), size + each.payload_bytes)
    return found


def counted(spec: JobSpec) -> Summed:
    """Count the collectives of the third step; DDP orders its buckets anew in the second."""
    step = first_phase_step(make_worker(spec, VOCABULARY), VOCABULARY)
    step()
    step()
    return summed(collectives(step))


def counted_of_all(specs: list[JobSpec]) -> list[Summed]:
    return [counted(spec) for spec in specs]


def test_calls_and_bytes_at_every_stage_are_those_of_a_real_step_on_two_ranks() -> None:
    ways = [(stage, micro_batches) for stage in range(4) for micro_batches in (1, 3)]
    specs = [make_spec(2, stage, micro_batches) for stage, micro_batches in ways]
    for found in run_on_ranks(2, counted_of_all, specs):
        for (stage, micro_batches), spec, real in zip(ways, specs, found, strict=True):
            assert planned(spec, 2, stage) == real, (stage, micro_batches)


def test_copies_of_a_sharded_model_exchange_the_sums_of_their_shards_once_a_step() -> None:
    stages = (1, 3)
    specs = [make_spec(4, stage, parallel={"workers": 4, "zero_stage": stage, "replicate": 2}) for stage in stages]
    for found in run_on_ranks(4, counted_of_all, specs):
        for stage, spec, real in zip(stages, specs, found, strict=True):
            assert planned(spec, 4, stage) == real, stage


def test_frozen_weights_are_gathered_and_have_no_gradients() -> None:
    data = {"corpus": ["builtin:austen"], "vocab": 90, "next_sentence": False}
    spec = make_spec(2, 2, 2, data=data)
    for found in run_on_ranks(2, counted_of_all, [spec]):
        assert planned(spec, 2, 2) == found[0]


def debugged(spec: JobSpec) -> tuple[Summed, dict[str, int]]:
    step = first_phase_step(make_worker(spec, VOCABULARY), VOCABULARY)
    step()
    with CommDebugMode() as mode:  # type: ignore[no-untyped-call]
        step()
    return summed(collectives(step)), {str(op): calls for op, calls in mode.get_comm_counts().items()}


def test_torchs_own_count_of_collectives_is_the_same() -> None:
    names = {"all-gather": "_allgather_base_", "reduce-scatter": "_reduce_scatter_base_", "all-reduce": "allreduce_"}
    for found, debug in run_on_ranks(2, debugged, make_spec(2, 3, 1)):
        calls = {f"c10d.{names[name]}": calls for (name, _), (calls, _) in found.items()}
        assert calls == debug


def exchanged_before_a_step(text: Path, home: Path) -> Summed:
    spec = parse_spec(document(text, 2))
    data, phase = open_phase(prepare(spec.data, home), spec, spec.phases[0]), spec.phases[0]
    rows, room = split(phase, 0, dist.get_rank(), 2), room_of(data, phase.micro_batch_size)
    return summed(collectives(lambda: draw_share(data, rows, torch.device("cpu"), room)))


def test_the_hosts_exchange_counts_once_before_a_step(text: Path, tmp_path: Path) -> None:
    spec = parse_spec(document(text, 2))
    (counts,) = [each for each in traffic(Attempt(spec, VOCABULARY, 2, 1), spec.phases[0]) if each.of == COUNTS]
    expected = {(counts.collective, counts.ranks): (counts.calls, counts.payload_bytes)}
    assert run_on_ranks(2, exchanged_before_a_step, text, tmp_path) == [expected, expected]


@pytest.mark.parametrize("workers", [1, 8, 1024])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_calls_and_bytes_are_those_of_a_rank_among_up_to_a_thousand(stage: int, workers: int) -> None:
    spec = make_spec(workers, stage)
    with one_of(workers):
        found = counted(spec)
    real = {key: value for key, value in found.items() if key[1] > 1}
    assert planned(spec, workers, stage) == real


def test_a_ring_sends_all_but_a_ranks_own_part_once_or_for_an_all_reduce_twice() -> None:
    assert Exchange.in_a_ring("all-gather", "weights", 4, 1, 1000).wire_bytes == 750
    assert Exchange.in_a_ring("all-reduce", "gradients", 4, 1, 1000).wire_bytes == 1500
