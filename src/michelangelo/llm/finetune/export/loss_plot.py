"""The losses of a run by step, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["write"]


def write(path: Path, training: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]]) -> bool:
    """The same numbers give the same bytes. False, and no file, where there is nothing to draw or no matplotlib."""
    if not training:
        return False
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        return False
    with matplotlib.rc_context({"svg.hashsalt": "michelangelo"}):
        figure = Figure(figsize=(7.0, 3.5), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.plot(*zip(*training, strict=True), label="training", linewidth=1.2)
        if validation:
            axes.plot(*zip(*validation, strict=True), "o-", label="validation")
            axes.legend(frameon=False)
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per token)")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})
    return True
