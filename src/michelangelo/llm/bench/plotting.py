"""An experiment's series as one figure, SVG and PNG: what was measured as lines or bars, what was predicted dashed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from michelangelo.llm.bench.experiment import Series

__all__ = ["write"]


def write(series: Sequence[Series], path: Path, *, title: str) -> None:
    """`path` without a suffix. The same series give the same SVG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((one.x_label, one.y_label) for one in series))
    with matplotlib.rc_context({"svg.hashsalt": "michelangelo"}):
        figure = Figure(figsize=(max(5.0, 4.2 * len(panels)), 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title)
        for position, panel in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), position + 1)
            shown = [one for one in series if (one.x_label, one.y_label) == panel]
            (_lines if panel[0] else _bars)(axes, shown)
            axes.set_xlabel(panel[0])
            axes.set_ylabel(panel[1])
            axes.grid(visible=True, axis="y", alpha=0.3)
        figure.savefig(path.with_suffix(".svg"), format="svg", metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), format="png", dpi=144)


def _lines(axes: Any, series: Sequence[Series]) -> None:
    for number, one in enumerate(series):
        colour = f"C{number % 10}"
        measured = sorted((p.x, p.y) for p in one.points if p.y is not None)
        predicted = sorted((p.x, p.predicted) for p in one.points if p.predicted is not None)
        if predicted:
            axes.plot(*zip(*predicted, strict=True), "--", color=colour, label=f"{one.name}, predicted")
        if measured:
            marker = "o" if len(measured) <= 20 else ""
            axes.plot(*zip(*measured, strict=True), marker=marker, color=colour, label=one.name)
    if any(one.x_is_log for one in series):
        axes.set_xscale("log", base=2)
    if len(series) > 1 or any(p.predicted is not None for one in series for p in one.points):
        axes.legend(fontsize="small")


def _bars(axes: Any, series: Sequence[Series]) -> None:
    for number, one in enumerate(series):
        for point in one.points:
            if point.y is not None:
                axes.bar(point.x, point.y, width=0.6, color=f"C{number % 10}")
            if point.predicted is not None:
                axes.hlines(point.predicted, point.x - 0.35, point.x + 0.35, color="black", linestyles="dashed")
    axes.set_xticks([p.x for one in series for p in one.points], [one.name for one in series for _ in one.points])
