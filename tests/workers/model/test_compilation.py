"""What is compiled, how often, and that it computes the same.

The backend runs what was traced, forward and backward, without generating code for it, which would take a minute here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from tests.workers.small_job import PHASE, document
from workers.contract.documents import parse_spec
from workers.contract.manifests import read_shards
from workers.contract.phases import phase_windows
from workers.contract.spec.job import JobSpec
from workers.corpus.prepare import prepare
from workers.model.bert import PretrainingBert
from workers.model.compilation import compile_parts, compiles
from workers.model.sharding import whole
from workers.ranks import process_group
from workers.samples.batch import Room
from workers.samples.dataset import open_phase
from workers.training.feeding import feed
from workers.training.step import Worker, set_up, take_step

# Dynamo looks at the gradient of whatever it traces with, and hides the warning unless warnings are errors.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GRAPHS = 3
"""The embeddings, a layer, and the heads with their losses."""


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("wanted", "on_a_cpu", "on_a_gpu"), [("auto", False, True), ("on", True, True), ("off", False, False)]
)
def test_left_open_the_model_is_compiled_on_gpus_alone(wanted: str, *, on_a_cpu: bool, on_a_gpu: bool) -> None:
    spec = parse_spec(document(Path("/text.txt"), execution={"compile": wanted}))
    assert (compiles(spec, CPU), compiles(spec, GPU)) == (on_a_cpu, on_a_gpu)


def train(spec: JobSpec, corpus: Path, worker: Worker) -> list[list[float]]:
    """Take all steps; from the second one of each phase on nothing may be compiled. Return what each has counted."""
    sums = []
    for window in phase_windows(spec.phases):
        for step, share in feed(window, 0, open_phase(corpus, spec, window.phase), worker.device):
            is_first = step == window.steps_before + 1
            with torch.compiler.set_stance("default" if is_first else "fail_on_recompile"):
                sums.append(take_step(worker, step, 1e-3, share).tolist())
    return sums


def traced(module: PretrainingBert) -> None:
    compile_parts(module, phases=2, backend="aot_eager")


@pytest.mark.parametrize(
    "changes",
    [
        {"parallel": {"zero_stage": 0}},
        {"parallel": {"zero_stage": 3}},
        {"parallel": {"zero_stage": 1}, "execution": {"activation_checkpointing": True}},
        {"data": {"packing": True, "whole_word": True}},
    ],
    ids=["copies", "shards", "activations computed again", "packed whole words"],
)
def test_a_phase_has_one_graph_of_each_part_and_compiled_steps_are_those_of_plain_ones(
    text: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    job = document(text, phases=[PHASE | {"steps": 3}, PHASE | {"seq_len": 16, "global_batch_size": 4, "steps": 2}])
    spec = parse_spec(job | changes | {"data": job["data"] | changes.get("data", {})})
    corpus = prepare(spec.data, tmp_path)
    with process_group(spec):
        plain, compiled = (set_up(spec, read_shards(corpus), begin) for begin in (None, traced))
        expected, found = (train(spec, corpus, worker) for worker in (plain, compiled))
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-5, atol=0)
        weights, others = (dict(whole(worker.module).named_parameters()) for worker in (plain, compiled))
        assert list(weights) == list(others)
        for name, weight in weights.items():
            torch.testing.assert_close(others[name], weight, rtol=1e-4, atol=1e-5, msg=name)
    assert counters["stats"]["unique_graphs"] == GRAPHS * len(spec.phases)


def test_a_batch_of_another_shape_would_be_noticed(text: Path, tmp_path: Path) -> None:
    spec = parse_spec(document(text))
    corpus = prepare(spec.data, tmp_path)
    (window,) = phase_windows(spec.phases)
    with process_group(spec):
        worker = set_up(spec, read_shards(corpus), traced)
        shares = [share for _, share in feed(window, 4, open_phase(corpus, spec, window.phase), CPU)]
        take_step(worker, 5, 1e-3, shares[0])
        first = shares[1].micro_batches[0]
        room = Room(len(first.batch.masked_labels) + 8, samples=2, boundaries=0)
        more = first._replace(batch=first.batch.padded(room))
        with (
            torch.compiler.set_stance("fail_on_recompile"),
            pytest.raises(RuntimeError, match="recompile"),
        ):
            take_step(worker, 6, 1e-3, shares[1]._replace(micro_batches=[more]))


def test_a_job_that_says_so_is_set_up_compiled(text: Path, tmp_path: Path) -> None:
    for wanted in ("on", "off"):
        spec = parse_spec(document(text, execution={"compile": wanted}))
        corpus = prepare(spec.data, tmp_path)
        with process_group(spec):
            module = set_up(spec, read_shards(corpus)).module
        parts = [module.sums, module.bert.embeddings.forward, *(layer.forward for layer in module.bert.encoder.layer)]
        assert [hasattr(part, "_torchdynamo_orig_callable") for part in parts] == [wanted == "on"] * 4
