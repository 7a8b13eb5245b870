from pathlib import Path

import yaml

from workers.checkpoints.model_card import model_card
from workers.contract.records import EvaluationRecord, StepRecord
from workers.contract.run.folder import RunFolder
from workers.training.reporting.reporter import Reporter

STEP = {"phase": 0, "loss": 3.0, "mlm_loss": 2.5, "nsp_loss": 0.5, "mlm_accuracy": 0.25, "lr": 0.1, "grad_norm": 1.0}
REST = {"clip_coef": 1.0, "skipped": False, "tokens_per_s": 10.0, "step_s": 1.0, "trust_ratio": None}


def evaluation(step: int, mlm_loss: float) -> EvaluationRecord:
    return EvaluationRecord(
        step=step,
        attempt=1,
        phase=0,
        seq_len=32,
        rows=100,
        masked=480,
        mlm_loss=mlm_loss,
        mlm_accuracy=0.2,
        perplexity=9.0,
        nsp_loss=0.6,
        nsp_accuracy=0.7,
        seconds=1.0,
    )


def test_the_figures_are_those_of_the_step_and_the_last_evaluation_before_it(run: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    reporter = Reporter(folder)
    for step, mlm_loss in [(1, 5.5), (2, 4.4), (3, 3.3)]:
        changes = {"step": step, "mlm_loss": mlm_loss, "tokens": 1000}
        reporter.emit(StepRecord.model_validate(STEP | REST | changes))
        reporter.emit(evaluation(step, mlm_loss + 0.001))
    reporter.close()
    card = model_card(folder, run.spec(), 2, parameters=12_345)
    assert "MLM loss of step 2, on the text it learned from: 4.4000 nats" in card
    assert "on held-out text: MLM loss 4.401 nats" in card
    assert "saw 2,000 tokens" in card
    assert "(12,345 parameters)" in card
    assert "3.3000" not in card
    assert "3.301" not in card


def test_a_run_without_a_journal_has_a_card_without_figures(run: RunFolder, tmp_path: Path) -> None:
    card = model_card(RunFolder(tmp_path), run.spec(), 2, parameters=1)
    assert "No record of a step is in the run folder." in card
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
