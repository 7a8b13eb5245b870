import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertForPreTraining

from tests.ranks import run_on_ranks
from tests.workers.conftest import Data
from tests.workers.small_job import PHASE, document
from workers import ranks
from workers.contract.documents import parse_spec
from workers.contract.manifests import read_shards
from workers.corpus.prepare import prepare
from workers.evaluation.held_out import Figures, HeldOut
from workers.ranks import process_group
from workers.training.step import set_up

ROWS = 13  # no batch of the tests divides it
DATA = {"corpus": [""], "validation": 0.2}
TWELVE = PHASE | {"global_batch_size": 12}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(Data(["builtin:austen-valid"], 300, validation=0.2), tmp_path_factory.mktemp("home"))


def judged(corpus: Path, batch_size: int, workers: int = 1, zero_stage: int = 2, compute: str = "fp32") -> Figures:
    """Judge an untrained model twice. It has dropout, which must play no part."""
    job = document(Path(), workers, zero_stage, data=DATA, evaluation={"sequences": ROWS}, phases=[TWELVE])
    job["model"] |= {"dropout": 0.3}
    spec = parse_spec(job | {"precision": {"compute": compute}})
    worker = set_up(spec, read_shards(corpus))
    held_out = replace(HeldOut.open(corpus, spec, spec.phases[0]), batch_size=batch_size)
    before = torch.get_rng_state()
    figures, again = (held_out.evaluate(worker.module, worker.device) for _ in range(2))
    assert figures
    assert again
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in worker.model.modules())
    assert again._replace(seconds=0) == figures._replace(seconds=0)
    return figures


def alone(corpus: Path, batch_size: int) -> Figures:
    with process_group(parse_spec(document(Path()))):
        return judged(corpus, batch_size)


@pytest.fixture(scope="module")
def whole(corpus: Path) -> Figures:
    """The figures of one rank that computes all rows at once."""
    return alone(corpus, ROWS)


def test_the_figures_are_means_over_all_rows_of_the_plain_model_in_double_precision(
    corpus: Path, whole: Figures
) -> None:
    spec = parse_spec(document(Path(), zero_stage=0, data=DATA))
    mlm, nsp, right, right_nsp = list[torch.Tensor](), list[torch.Tensor](), list[torch.Tensor](), list[bool]()
    with process_group(spec):
        model = set_up(spec, read_shards(corpus)).module.double().eval()
        data = HeldOut.open(corpus, spec, spec.phases[0]).data
        for row in range(ROWS):
            batch = data.batch([row])
            with torch.no_grad():
                out = BertForPreTraining.forward(
                    model,
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask,
                    token_type_ids=batch.token_type_ids,
                )
            scores = out.prediction_logits[0, batch.masked_positions].log_softmax(-1)
            mlm.append(-scores.gather(1, batch.masked_labels[:, None])[:, 0])
            right.append(scores.argmax(-1) == batch.masked_labels)
            guess = out.seq_relationship_logits[0].log_softmax(-1)
            nsp.append(-guess[batch.next_sentence_labels])
            right_nsp.append(bool(guess.argmax() == batch.next_sentence_labels[0]))
    losses = torch.cat(mlm)
    assert (whole.rows, whole.masked) == (ROWS, len(losses))
    assert whole.mlm_loss == pytest.approx(float(losses.mean()), rel=1e-6)
    assert whole.perplexity == pytest.approx(math.exp(float(losses.mean())), rel=1e-5)
    assert whole.mlm_accuracy == float(torch.cat(right).double().mean())
    assert whole.nsp_loss == pytest.approx(float(torch.cat(nsp).mean()), rel=1e-6)
    assert whole.nsp_accuracy == sum(right_nsp) / ROWS


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_batch_of_the_evaluation_does_not_change_the_figures(batch_size: int, corpus: Path, whole: Figures) -> None:
    assert list(alone(corpus, batch_size))[:-1] == pytest.approx(list(whole)[:-1], abs=1e-7)


@pytest.mark.parametrize(
    ("workers", "zero_stage", "compute"),
    [(2, 0, "fp32"), (2, 1, "fp32"), (2, 2, "bf16"), (2, 3, "fp32"), (3, 0, "bf16"), (3, 3, "fp32")],
)
def test_neither_do_ranks_zero_stage_and_precision_even_where_a_rank_has_no_rows_left(
    workers: int, zero_stage: int, compute: str, corpus: Path, whole: Figures
) -> None:
    for figures in run_on_ranks(workers, judged, corpus, 4, workers, zero_stage, compute):
        assert list(figures)[:-1] == pytest.approx(list(whole)[:-1], abs=1e-7)


def test_a_job_without_next_sentence_prediction_has_no_figures_of_it(corpus: Path, whole: Figures) -> None:
    data = DATA | {"next_sentence": False}
    spec = parse_spec(document(Path(), data=data, evaluation={"sequences": ROWS}))
    with process_group(spec):
        worker = set_up(spec, read_shards(corpus))
        figures = HeldOut.open(corpus, spec, spec.phases[0]).evaluate(worker.module, worker.device)
    assert figures
    assert (figures.rows, figures.nsp_loss, figures.nsp_accuracy) == (ROWS, None, None)
    assert figures.mlm_loss == pytest.approx(whole.mlm_loss, rel=0.1)


def given_up(corpus: Path, after: int) -> tuple[bool, int]:
    """Judge in turns of one row, and ask on the last rank to stop after some of them; tell what came of it."""
    spec = parse_spec(document(Path(), ranks.world_size(), data=DATA, evaluation={"sequences": ROWS}, phases=[TWELVE]))
    worker, turns = set_up(spec, read_shards(corpus)), list[int]()

    def asks_to_stop() -> bool:
        turns.append(len(turns))
        return ranks.rank() == ranks.world_size() - 1 and len(turns) > after

    held_out = replace(HeldOut.open(corpus, spec, spec.phases[0]), batch_size=1)
    return held_out.evaluate(worker.module, worker.device, asks_to_stop) is None, len(turns)


def test_it_ends_early_on_all_ranks_where_one_asks_for_it(corpus: Path) -> None:
    assert run_on_ranks(2, given_up, corpus, 3) == [(True, 4)] * 2
    assert run_on_ranks(2, given_up, corpus, 7) == [(False, 7)] * 2


def test_the_rows_and_their_masks_are_those_of_no_job_and_the_same_for_every_job(corpus: Path) -> None:
    specs = [parse_spec(document(Path(), seed=seed, data=DATA)) for seed in (0, 1)]
    first, second = (HeldOut.open(corpus, spec, spec.phases[0]).data.batch(range(5)) for spec in specs)
    for one, other in zip(first[:-1], second[:-1], strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_a_text_of_fewer_rows_than_asked_for_is_used_once(corpus: Path) -> None:
    spec = parse_spec(document(Path(), data=DATA))
    held_out = HeldOut.open(corpus, spec, spec.phases[0])
    assert held_out.rows == len(held_out.data) < spec.evaluation.sequences


def test_a_loss_beyond_all_bounds_has_an_infinite_perplexity() -> None:
    assert Figures(1, 1, 1e4, 0.0, 0.0, 0.0, 0.0).perplexity == math.inf


def test_without_next_sentence_prediction_there_are_no_figures_of_it(corpus: Path) -> None:
    spec = parse_spec(document(Path(), data=DATA | {"next_sentence": False}))
    with process_group(spec):
        worker = set_up(spec, read_shards(corpus))
        figures = HeldOut.open(corpus, spec, spec.phases[0]).evaluate(worker.module, worker.device)
    assert figures is not None
    assert (figures.nsp_loss, figures.nsp_accuracy) == (None, None)
    assert 0 < figures.mlm_loss < 20
