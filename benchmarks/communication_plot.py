"""What a worker sends in a step as a picture: how it grows with the number of workers."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.plot import INK

COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea")


def draw(points: Sequence[tuple[str, int, float]], file: Path) -> None:
    """Write the bytes (way, workers, sent) as SVG, a line for each way.

    A dashed line beside each is what the ring's own factor (W - 1) / W alone would give, drawn through its first point.
    """
    with mpl.rc_context({"svg.hashsalt": "bigbatch", "font.size": 9, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(7, 4), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for way, colour in zip(dict.fromkeys(way for way, *_ in points), COLOURS, strict=False):
            workers, sent = zip(*[(w, size / 1e9) for name, w, size in points if name == way], strict=True)
            axes.plot(workers, sent, "o-", color=colour, label=way)
            whole = sent[0] * workers[0] / (workers[0] - 1)
            axes.plot(workers, [whole * (w - 1) / w for w in workers], "--", color=colour, linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({w for _, w, _ in points}), [f"{w:,}" for w in sorted({w for _, w, _ in points})])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("workers")
        axes.set_ylabel("GB that a worker sends in a step")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, metadata={"Date": None})
