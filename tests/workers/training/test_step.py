from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.ranks import run_on_ranks
from tests.workers.small_job import document
from workers.contract.documents import parse_spec
from workers.contract.manifests import read_shards
from workers.corpus.prepare import prepare
from workers.model.bert import build
from workers.ranks import process_group
from workers.samples.dataset import PreTrainingData, open_phase
from workers.samples.room import room_of
from workers.training.feeding import draw_share
from workers.training.optimizer import build_optimizer
from workers.training.reporting.clock import StepClock
from workers.training.step import Worker, dropout_seed, set_up, take_step
from workers.training.uploads import Uploads


def test_the_seed_of_dropout_differs_with_seed_step_and_first_row_and_stays_the_same() -> None:
    seeds = {
        dropout_seed(seed, step, sample) for seed in range(5) for step in range(1, 9) for sample in range(0, 256, 8)
    }
    assert len(seeds) == 5 * 8 * 32
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert dropout_seed(42, 7, 1024) == DROPOUT_OF_42_7_1024


DROPOUT_OF_42_7_1024 = 16051565744320596497
"""Pinned: another value would give every run that is resumed another curve."""


def gradients(text: Path, home: Path, sizes: list[int], dropout: float) -> dict[str, torch.Tensor]:
    """The first moment after one step over the same samples, cut into micro-batches of these sizes."""
    spec = parse_spec(document(text, model=document(text)["model"] | {"dropout": dropout}))
    corpus = prepare(spec.data, home)
    data = PreTrainingData(corpus, seq_len=32, seed=spec.seed)
    with process_group(spec):
        worker = set_up(spec, read_shards(corpus))
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        rows = [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]
        take_step(worker, 1, 1e-3, draw_share(data, rows, worker.device, room_of(data, max(sizes))))
        moments = {name: worker.optimizer.state[p]["exp_avg"] for name, p in worker.module.named_parameters()}
        return {name: moment.full_tensor() for name, moment in moments.items()}


def test_without_dropout_the_size_of_the_micro_batches_does_not_matter_and_with_it_it_does(
    text: Path, tmp_path: Path
) -> None:
    name = "bert.encoder.layer.0.attention.self.query.weight"
    without = [gradients(text, tmp_path, sizes, 0.0)[name] for sizes in ([2, 2], [4])]
    torch.testing.assert_close(without[0], without[1])
    with_dropout = [gradients(text, tmp_path, sizes, 0.1)[name] for sizes in ([2, 2], [4])]
    assert not torch.allclose(with_dropout[0], with_dropout[1])


def test_dropout_does_not_depend_on_what_was_drawn_before(text: Path, tmp_path: Path) -> None:
    first = gradients(text, tmp_path, [2, 2], 0.1)
    torch.rand(1000)
    second = gradients(text, tmp_path, [2, 2], 0.1)
    assert all(torch.equal(first[name], second[name]) for name in first)


class Exchanged(NamedTuple):
    """How often all ranks exchanged something in a step."""

    gathered: int
    scattered: int
    summed: int


class CountCollectives(TorchDispatchMode):
    """Counts the collectives by their names. CommDebugMode would hook into every module, which FSDP2 does not bear."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own is untyped
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self.names[func.overloadpacket.__name__] += 1
        return func(*args, **kwargs or {})

    @property
    def exchanged(self) -> Exchanged:
        return Exchanged(*(self.names[name] for name in ("_allgather_base_", "_reduce_scatter_base_", "allreduce_")))


def collectives(corpus: Path, kinds: list[tuple[int, int]]) -> list[tuple[Exchanged, Exchanged]]:
    """Count the collectives of a step of one micro-batch and of one of three, for each stage and number of copies."""
    found = []
    for stage, copies in kinds:
        parallel = {"workers": 2, "zero_stage": stage, "replicate": copies}
        spec = parse_spec(document(Path(), parallel=parallel))
        worker = set_up(spec, read_shards(corpus))
        data = PreTrainingData(corpus, seq_len=32, seed=spec.seed)
        rows, room = [range(at, at + 2) for at in (0, 2, 4)], room_of(data, 2)
        one, three = (draw_share(data, some, worker.device, room) for some in (rows[:1], rows))
        take_step(worker, 1, 1e-3, three)  # the first step has collectives of its own
        counted = []
        for several in (one, three):
            mode = CountCollectives()
            with mode:
                take_step(worker, 2, 1e-3, several)
            counted.append(mode.exchanged)
        found.append((counted[0], counted[1]))
    return found


def test_more_micro_batches_make_no_more_exchanges_than_the_stage_wants(text: Path, tmp_path: Path) -> None:
    corpus = prepare(parse_spec(document(text)).data, tmp_path)
    kinds = [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)]
    for counted in run_on_ranks(2, collectives, corpus, kinds):
        (first_1, first_3), (second_1, second_3), (third_1, third_3), *copies = counted
        assert first_1 == first_3 == second_1
        assert first_1[:2] == (3, 3)  # two layers, and all the rest as a third
        assert second_3 == second_1._replace(scattered=9)
        assert third_1 == first_1._replace(gathered=6)  # in the forward pass and again in the backward pass
        assert third_3 == third_1._replace(gathered=18, scattered=9)
        for one, three in copies:  # of one shard, so that there is nothing to be gathered or scattered
            assert one == three
            assert (one.gathered, one.scattered) == (0, 0)


class Uploaded(TorchDispatchMode):
    """Notes what is copied to a device that holds no values, until it is told that it is enough."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own is untyped
        self.tensors: list[torch.Tensor] = []
        self.is_enough = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        if not self.is_enough and isinstance(out, torch.Tensor) and out.is_meta:
            self.tensors += [each for each in args if isinstance(each, torch.Tensor) and not each.is_meta]
        return out


@pytest.mark.parametrize("kind", [{}, {"packing": True, "whole_word": True}, {"next_sentence": False}])
def test_a_step_asks_its_device_for_no_value_and_uploads_each_micro_batch_at_once(
    text: Path, tmp_path: Path, kind: dict[str, Any]
) -> None:
    """Any value that the host waited for would be missing on the meta device, and the step would fail."""
    job = document(text)
    spec, meta = parse_spec(job | {"data": job["data"] | kind}), torch.device("meta")
    corpus = prepare(spec.data, tmp_path)
    data = open_phase(corpus, spec, spec.phases[0])
    with process_group(spec):
        module = build(spec.model, data.vocab_size, 0, pad_id=0, next_sentence=spec.data.next_sentence).to(meta)
        optimizer, uploaded = build_optimizer(spec, module), Uploaded()
        worker = Worker(spec, meta, module, module, optimizer, 0, Uploads(meta), StepClock(meta, 0))
        share = draw_share(data, [range(2), range(2, 4), range(4, 6)], meta, room_of(data, 2))
        optimizer.register_step_pre_hook(lambda *_: setattr(uploaded, "is_enough", True))  # its own are tested with it
        with uploaded:
            take_step(worker, 1, 1e-3, share)
    sums, *flat = uploaded.tensors
    assert sums is share.sums
    assert [len(each) for each in flat] == [len(each.batch.flattened(pin=False)) for each in share.micro_batches]
    assert uploaded.is_enough
