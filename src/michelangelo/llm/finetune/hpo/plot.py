"""The losses of trials over one field that is searched on a logarithmic scale, a line per value of another, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Point", "write"]


@dataclass(frozen=True, slots=True)
class Point:
    """One trial. `group` tells the lines apart; empty: all are one."""

    across: float
    loss: float
    group: str


def write(points: Sequence[Point], file: Path, *, across: str, group: str, metric: str) -> None:
    """The same points give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "michelangelo"}):
        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for name in sorted({point.group for point in points}, key=_order):
            line = sorted((point.across, point.loss) for point in points if point.group == name)
            label = f"{group} {name}" if name else None
            axes.plot([at for at, _ in line], [loss for _, loss in line], marker="o", label=label)
        axes.set_xscale("log")
        axes.set_xlabel(across)
        axes.set_ylabel(f"{metric} (nats per token)")
        axes.grid(visible=True, alpha=0.3)
        if any(point.group for point in points):
            axes.legend()
        figure.savefig(file, format="svg", metadata={"Date": None})


def _order(name: str) -> tuple[float, str]:
    """Numbers by size, then words."""
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name
