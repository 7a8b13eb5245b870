"""A run as a picture: how many of the baseline's steps each contender's takes."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.contenders import BASELINE, OURS
from benchmarks.results import Report, Result

BLUE, LIGHT_BLUE, GREY, INK = "#2563eb", "#93c5fd", "#9ca3af", "#1f2937"
LONGEST = 12
"""Bars are cut there, else the slowest would leave no room to tell the others apart; the labels say all."""


def draw(report: Report, file: Path) -> None:
    """Write a panel for each model and number of threads of one rank, as SVG.

    The background is white and not left out, so that the ink is read on a dark page too.
    """
    results = [result for result in report.results if result.ranks == 1]
    models, threads = (list(dict.fromkeys(getattr(r, field) for r in results)) for field in ("model", "threads"))
    # Letters as paths look the same everywhere; without a salt and with a date each file would be another.
    with mpl.rc_context({"svg.hashsalt": "bigbatch", "font.size": 9, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(5 * len(threads), 0.8 + 2.2 * len(models)), layout="constrained", facecolor="white")
        panels = figure.subplots(len(models), len(threads), sharex=True, squeeze=False)
        for model, row in zip(models, panels, strict=True):
            for number, axes in zip(threads, row, strict=True):
                _panel(axes, [r for r in results if (r.model, r.threads) == (model, number)])
                axes.set_title(f"{model}, {number} thread{'' if number == 1 else 's'}", loc="left", fontweight="bold")
        longest = min(LONGEST, max(result.over_adamw for result in results))
        panels[0, 0].set_xlim(0, 1.2 * longest)  # room for the last label
        figure.supxlabel(f"time of a step ÷ that of {BASELINE}; less is better", fontsize=9)
        figure.savefig(file, metadata={"Date": None})


def _panel(axes: Axes, results: list[Result]) -> None:
    rows = sorted((r for r in results if r.name != BASELINE), key=lambda r: r.over_adamw, reverse=True)
    colors = [BLUE if r.name == OURS else LIGHT_BLUE if r.name.startswith(OURS) else GREY for r in rows]
    bars = axes.barh([r.name for r in rows], [min(r.over_adamw, LONGEST) for r in rows], color=colors, height=0.7)
    labels = [f"{r.over_adamw:.2f}{', cut' if r.over_adamw > LONGEST else ''}" for r in rows]
    axes.bar_label(bars, labels, padding=3, color=INK)
    axes.axvline(1, color=INK, linewidth=1)
    axes.tick_params(length=0, colors=INK)
    axes.set_xticks([1], [BASELINE])
    axes.spines[:].set_visible(False)
