"""The report's figures, as SVG text: risk over coverage, scores by label, reliability. Same numbers, same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Final

from michelangelo.llm.contexteval.evaluation import curves, measuring

__all__ = ["reliability", "risk_coverage", "scores"]

_COLOURS: Final = {"answerable": "C0", "near-miss": "C1", "unanswerable": "C3"}


def risk_coverage(gate: curves.Curve, cosine: curves.Curve) -> str:
    """Both curves, and a perfect score's area for comparison."""

    def draw(axes: Any) -> None:
        for name, one, style in (("gate", gate, "-"), ("cosine", cosine, "--")):
            axes.plot(one.coverage, one.risk, style, label=f"{name}, area {one.aurc:.3f}")
        axes.plot([], [], " ", label=f"least possible area {gate.best_aurc:.3f}")
        axes.set_xlabel("coverage: share of the questions answered")
        axes.set_ylabel("risk: share of the answers that is wrong")
        axes.legend(fontsize="small")

    return _svg(draw)


def scores(table: measuring.Table, threshold: float) -> str:
    """How many questions of each label have which score, and where the threshold is."""

    def draw(axes: Any) -> None:
        labels = [label for label in _COLOURS if (table.labels == label).any()]
        axes.hist(
            [table.scores[table.labels == label] for label in labels],
            bins=20,
            range=(0.0, 1.0),
            stacked=True,
            color=[_COLOURS[label] for label in labels],
            label=labels,
        )
        axes.axvline(min(threshold, 1.0), color="black", linestyle="--", label=f"threshold {threshold:.3f}")
        axes.set_xlabel("score")
        axes.set_ylabel("questions")
        axes.legend(fontsize="small")

    return _svg(draw)


def reliability(bins: Sequence[curves.Bin]) -> str:
    """The share of answerable questions per bin of the score; the size of a point is the number of questions."""

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], ":", color="grey")
        axes.scatter(
            [one.score for one in bins], [one.share for one in bins], s=[4 + 2 * one.questions for one in bins]
        )
        axes.set_xlabel("score")
        axes.set_ylabel("share that is answerable")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)

    return _svg(draw)


def _svg(draw: Callable[[Any], None]) -> str:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "michelangelo", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(1, 1, 1)
        draw(axes)
        axes.grid(visible=True, alpha=0.3)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    # Without the XML declaration and doctype it may stand in HTML.
    return text[text.index("<svg") :]
