"""The plot of a search: cost over time of all that fits, with those that no other beats. It chooses nothing.

matplotlib is an optional library (extra `llm`), loaded here only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.planner.search import Candidate, Found

__all__ = ["FORMATS", "check", "draw"]

FORMATS: Final = (".svg", ".png", ".pdf")
_COLOURS: Final = {"full": "#b5542c", "lora": "#2f6f9f", "qlora": "#4b8f5a"}


def check(path: str) -> None:
    """Raises SettingsError where `draw` could not: another ending, a folder that is not there, no matplotlib."""
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise errors.SettingsError(f"plot {path}: the name must end with {', '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise errors.SettingsError(f"plot {path}: there is no folder {file.parent}")
    _library()


def draw(found: Found, path: str) -> None:
    """Hours and money on logarithmic axes; the size of a point is its number of GPUs. Raises SettingsError."""
    check(path)
    _library()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    priced = any(candidate.money for candidate in found.candidates)
    for method, colour in _COLOURS.items():
        mine = [candidate for candidate in found.candidates if candidate.setup.method == method]
        if mine:
            sizes = [8.0 + 4.0 * candidate.setup.num_gpus for candidate in mine]
            heights = [_height(candidate, priced) for candidate in mine]
            axes.scatter([c.hours for c in mine], heights, s=sizes, c=colour, alpha=0.25, lw=0, label=method)
    front = sorted(found.front(), key=lambda candidate: candidate.hours)
    axes.scatter(
        [c.hours for c in front], [_height(c, priced) for c in front], s=30, fc="none", ec="black", label="none better"
    )
    for name in ("cheapest", "fastest", "smallest"):
        chosen: Candidate | None = getattr(found, name)
        if chosen is not None:
            place = (chosen.hours, _height(chosen, priced))
            label = f"{name}: {chosen.setup.num_gpus} x {chosen.hardware.name}"
            axes.annotate(label, place, xytext=(6, 6), textcoords="offset points", fontsize=8)
    axes.set(
        xscale="log", yscale="log", xlabel="hours", ylabel=found.assumptions.prices.currency if priced else "GPU hours"
    )
    axes.set_title(f"{found.shape.name}: {len(found.candidates):,} of {found.num_tried:,} setups fit")
    axes.legend(frameon=False)
    matplotlib = _library()
    try:
        with matplotlib.rc_context({"svg.hashsalt": "michelangelo"}):
            figure.savefig(path, metadata={"Date": None} if path.lower().endswith(".svg") else None)
    except OSError as e:
        raise errors.SettingsError(f"plot {path}: cannot be written: {e.strerror or e}") from e


def _height(candidate: Candidate, priced: bool) -> float:
    return candidate.money if priced else candidate.hours * candidate.setup.num_gpus


def _library() -> Any:
    try:
        import matplotlib
    except ImportError as e:
        raise errors.SettingsError("a plot needs matplotlib: pip install 'michelangelo-oss[llm]'") from e
    return matplotlib
