"""The runs that are done as a table and as a picture; what is missing is named."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.scaling.plan import Run, best
from benchmarks.scaling.results import Result, Results
from benchmarks.tables import aligned, number

BEGIN, END = "<!-- measured: written by benchmarks/batch_scaling.py --report -->", "<!-- /measured -->"
LAMB, ADAMW, SEARCHED, PAPER = "LAMB by the rule", "AdamW by the rule", "AdamW, searched", "LAMB, the paper's numbers"


@dataclass(frozen=True)
class Cell:
    """One contender at one batch."""

    contender: str
    batch: int
    steps: int
    runs: tuple[Run, ...]
    """One for each seed; none where the search that they follow from is not done."""

    def losses(self, results: Results) -> list[float | None]:
        """Return the held-out loss for each seed, infinity where the run diverged and None where it is not done."""
        return [results.losses.get(run) for run in self.runs]


def cells(results: Results) -> Iterator[Cell]:
    """Yield what is compared, contender by contender in the order of the batches."""
    plan, losses = results.setting.plan, results.losses
    first, smallest = plan.seeds[0], plan.batches[0]

    def is_searched(optimizer: str, batch: int) -> bool:
        return any((run.optimizer, run.batch) == (optimizer, batch) for run in losses)

    for contender in (LAMB, ADAMW, SEARCHED, PAPER):
        for batch in plan.batches:
            runs = list[Run]()
            for seed in plan.seeds:
                if contender == PAPER:
                    runs.append(plan.as_in_the_paper(batch, seed))
                elif contender == SEARCHED and is_searched("adamw", batch):
                    found = best(losses, "adamw", batch, first)
                    runs.append(Run("adamw", batch, found.lr, found.warmup, seed))
                elif contender in {LAMB, ADAMW} and is_searched(optimizer := _optimizer(contender), smallest):
                    runs.append(plan.by_the_rule(optimizer, best(losses, optimizer, smallest, first).lr, batch, seed))
            yield Cell(contender, batch, results.setting.steps(batch), tuple(runs))


def section(results: Results, picture: str) -> str:
    """Return what stands between the marks of the page."""
    parts = [
        BEGIN,
        _setting(results),
        f"![held-out loss by batch]({picture})",
        _compared(results),
        _missing(results),
        "### All runs",
        _all(results),
        END,
    ]
    return "\n\n".join(part for part in parts if part)


def draw(results: Results, file: Path) -> None:
    """Write the picture, as SVG: the mean over the seeds as a line, each seed as a dot."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from benchmarks.plot import BLUE, GREY, INK, LIGHT_BLUE

    styles = {LAMB: (BLUE, "-"), ADAMW: (GREY, "--"), SEARCHED: (GREY, "-"), PAPER: (LIGHT_BLUE, "-")}
    # Letters as paths look the same everywhere; without a salt and with a date each file would be another.
    with mpl.rc_context({"svg.hashsalt": "bigbatch", "font.size": 9, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(6, 3.6), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for contender, (color, line) in styles.items():
            seen = [
                (cell.batch, [loss for loss in cell.losses(results) if loss is not None])
                for cell in cells(results)
                if cell.contender == contender
            ]
            seen = [(batch, losses) for batch, losses in seen if losses]
            if seen:
                batches = [batch for batch, _ in seen]
                axes.plot(batches, [mean(losses) for _, losses in seen], line, color=color, label=contender)
                dots = [(batch, loss) for batch, losses in seen for loss in losses]
                axes.plot(*zip(*dots, strict=True), "o", color=color, markersize=4)
        axes.set_xscale("log", base=2)
        axes.set_xticks(results.setting.batches, [f"{batch:,}" for batch in results.setting.batches])
        axes.set_xlabel("global batch, sequences")
        axes.set_ylabel("held-out MLM loss, nats")
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
        figure.savefig(file, metadata={"Date": None})


def _optimizer(contender: str) -> str:
    return "lamb" if contender == LAMB else "adamw"


def _setting(results: Results) -> str:
    setting = results.setting
    rows = {each.rows for each in results.results if each.rows}
    judged = f", judged by {', '.join(f'{count:,}' for count in sorted(rows))} held-out rows" if rows else ""
    budget = f"{setting.epochs * setting.epoch_rows:,.0f} rows (epochs: {setting.epochs:g})"
    return (
        f"{setting.model}, {setting.seq_len} tokens, a vocabulary of {setting.vocabulary:,}; each run learns {budget}, "
        f"on {setting.device}{judged}. {number(len(results.results), 'run')} done."
    )


def _compared(results: Results) -> str:
    seeds = results.setting.seeds
    titles = ["contender", "batch", "steps", "learning rate", "warm-up", *(f"seed {seed}" for seed in seeds), "mean"]
    lines = []
    for cell in cells(results):
        losses = cell.losses(results) or [None] * len(seeds)
        done = [loss for loss in losses if loss is not None]
        rate = [f"{cell.runs[0].lr:.3g}", f"{cell.runs[0].warmup:.2%}"] if cell.runs else ["", ""]
        average = _shown(mean(done)) if len(done) == len(seeds) else ""
        lines.append([cell.contender, f"{cell.batch:,}", f"{cell.steps:,}", *rate, *map(_shown, losses), average])
    return aligned(titles, lines)


def _missing(results: Results) -> str:
    missing = [
        f"{cell.contender} at {cell.batch:,}"
        + (f" ({lacking} of {len(losses)} seeds)" if lacking < len(losses) else "")
        for cell in cells(results)
        for losses in [cell.losses(results) or [None]]
        if (lacking := losses.count(None))
    ]
    if not missing:
        return ""
    return f"Not done yet: {'; '.join(missing)}. A search that is not done may still find a better rate."


def _all(results: Results) -> str:
    titles = ["optimizer", "batch", "learning rate", "warm-up", "seed", "steps", "held-out MLM loss", "accuracy"]
    return aligned(titles, [_line(each) for each in sorted(results.results, key=_order)])


def _order(result: Result) -> tuple[str, int, int, float]:
    run = result.run
    return run.optimizer, run.batch, run.seed, run.lr


def _line(result: Result) -> list[str]:
    run = result.run
    accuracy = "" if result.mlm_accuracy is None else f"{result.mlm_accuracy:.1%}"
    loss = "diverged" if result.mlm_loss is None else _shown(result.mlm_loss)
    rate = [f"{run.lr:.3g}", f"{run.warmup:.2%}"]
    return [run.optimizer, f"{run.batch:,}", *rate, str(run.seed), f"{result.steps:,}", loss, accuracy]


def _shown(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.3f}"
