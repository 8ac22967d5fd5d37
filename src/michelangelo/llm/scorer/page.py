"""A report or a sweep as one HTML file: tables and plots as SVG, nothing from the network, everything escaped."""

from __future__ import annotations

import html as escaping
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

__all__ = ["html", "sweep_html"]

_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .8rem .2rem 0;text-align:left;
border-bottom:1px solid #8884;vertical-align:top}td.n,th.n{text-align:right}h2{margin-top:2rem}
svg{max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:currentColor}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}
"""
_WIDTH: Final = 640
_HEIGHT: Final = 300
_LEFT: Final = 70
_BOTTOM: Final = 40
_MEASURED: Final = "#2a78d6"
_PLANNED: Final = "#c8662a"
_Row = Sequence[str]


def html(report: Mapping[str, Any]) -> str:
    """Of a job."""
    replicas = [
        [
            one["name"],
            one["engine"] or "no engine",
            f"{one['rows']:,}",
            _number(one["output_tokens_per_second"]),
            _percent(one["utilisation"]),
            _percent(one["busy"]),
            one["error"],
        ]
        for one in report["replicas"]
    ]
    titles = ["replica", "engine", "rows", "tokens/s out", "utilisation", "busy", "lost"]
    parts = [
        f"<h1>Scoring {_text(report['output'])}</h1>",
        _table((), _facts(report)),
        "<h2>Replicas</h2>",
        _bars([(one["name"], one["output_tokens_per_second"] or 0.0) for one in report["replicas"]], "tokens/s out"),
        _table(titles, replicas, numbers=range(2, 6)),
    ]
    if points := _points(report["prediction"]):
        after = report["prediction"]["after"]
        measured = [(float(after["batch"]), float(after["measured"]))] if "batch" in after else []
        parts += ["<h2>The planner's curve</h2>", _plot(measured, points, "requests at once", "tokens/s out")]
    if report["errors"]:
        failed = [[f"{one['rows']:,}", one["reason"]] for one in report["errors"]]
        parts += ["<h2>Rows that failed</h2>", _table(["rows", "reason"], failed, numbers=range(1))]
    return _page(f"Scoring {report['output']}", parts)


def sweep_html(swept: Mapping[str, Any]) -> str:
    """Of a sweep."""
    measured = [(float(point["batch"]), float(point[swept["unit"]])) for point in swept["points"]]
    planned = [(float(one["batch"]), float(one["predicted"])) for one in swept["points"] if one["predicted"]]
    rows = [
        [
            f"{point['batch']}",
            _number(point["output_tokens_per_second"]),
            _number(point["predicted"]),
            _number(point["rows_per_second"]),
            _seconds(point["first_token_seconds"]["p50"]),
            _seconds(point["latency_seconds"]["p95"]),
        ]
        for point in swept["points"]
    ]
    titles = ["at once", "tokens/s out", "planned", "rows/s", "first token p50", "latency p95"]
    said = (
        f"{swept['rows']:,} rows for each point. Nearly linear up to {swept['linear_up_to']:,} requests at once; the "
        f"knee, after which more are hardly worth it, is at {swept['knee']:,}."
    )
    parts = [
        f"<h1>Sweep of {_text(swept['engine'])}</h1>",
        f"<p>{_text(said)}</p>",
        _plot(measured, planned, "requests at once", swept["unit"].replace("_per_second", "/s").replace("_", " ")),
        _table(titles, rows, numbers=range(6)),
    ]
    return _page(f"Sweep of {swept['engine']}", parts)


def _facts(report: Mapping[str, Any]) -> list[_Row]:
    rows, tokens, session, cost = report["rows"], report["tokens"], report["session"], report["cost"]
    counted = f"{rows['total']:,}: {rows['scored']:,} scored, {rows['failed']:,} failed"
    made: list[_Row] = [
        ("task", report["task"]),
        ("rows", f"{counted}, {rows['rescored']:,} scored again after a loss"),
        ("tokens", f"{tokens['prompt']:,} in, {tokens['output']:,} out, {tokens['cached']:,} from a cache"),
        ("tokens/s out", _number(session["output_tokens_per_second"])),
        ("rows/s", _number(session["rows_per_second"])),
        ("sessions", f"{report['sessions']}"),
        ("utilisation", _percent(report["utilisation"])),
    ]
    for title, name in (("first token", "first_token_seconds"), ("latency", "latency_seconds")):
        spread = report[name]
        made.append((title, f"p50 {_seconds(spread['p50'])}, p95 {_seconds(spread['p95'])}"))
    if "accuracy" in report:
        made.append(("accuracy", f"{report['accuracy']['share']:.2%} of {report['accuracy']['rows']:,} rows"))
    if cost["total"] is not None:
        each = _number(cost["per_million_output_tokens"])
        made.append(
            ("cost", f"{cost['total']:.4g} USD; {each} USD per million tokens out; {'; '.join(cost['prices'])}")
        )
    for title, name in (("planned before", "before"), ("planned after", "after")):
        one = report["prediction"].get(name) or {}
        if "message" in one:
            made.append((title, one["message"]))
        elif "output_tokens_per_second" in one:
            interval = f"{_number(one['low'])} to {_number(one['high'])}"
            made.append((title, f"{_number(one['output_tokens_per_second'])} tokens/s per replica ({interval})"))
    return made


def _points(prediction: Mapping[str, Any]) -> list[tuple[float, float]]:
    for name in ("after", "before"):
        one = prediction.get(name) or {}
        if "points" in one:
            return [(float(batch), float(rate)) for batch, rate in one["points"]]
    return []


def _page(title: str, parts: Iterable[str]) -> str:
    head = f'<meta charset="utf-8"><title>{_text(title)}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _table(titles: Sequence[str], rows: Iterable[_Row], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)

    def cells(tag: str, texts: Sequence[str]) -> str:
        marks = [' class="n"' if place in right else "" for place in range(len(texts))]
        return "".join(f"<{tag}{mark}>{_text(text)}</{tag}>" for mark, text in zip(marks, texts, strict=True))

    head = f"<tr>{cells('th', titles)}</tr>" if titles else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table>{head}{body}</table>"


def _bars(values: Sequence[tuple[str, float]], label: str) -> str:
    most = max((value for _, value in values), default=0.0) or 1.0
    height = 24 * len(values) + 10
    drawn = []
    for place, (name, value) in enumerate(values):
        y = 24 * place + 5
        width = (_WIDTH - _LEFT - 90) * value / most
        drawn.append(f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{_text(name)}</text>')
        drawn.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="16" fill="{_MEASURED}"/>')
        drawn.append(f'<text x="{_LEFT + width + 6:.1f}" y="{y + 13}">{_text(_number(value))}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{_text(label)}">{"".join(drawn)}</svg>'


def _plot(
    measured: Sequence[tuple[float, float]], planned: Sequence[tuple[float, float]], x_label: str, y_label: str
) -> str:
    """Both axes are logarithmic, of base 2 across: a line of slope 1 is linear growth."""
    points = [point for point in (*measured, *planned) if point[0] > 0 and point[1] > 0]
    if not points:
        return ""
    across = _scale([x for x, _ in points], _LEFT, _WIDTH - 20)
    up = _scale([y for _, y in points], _HEIGHT - _BOTTOM, 20)
    drawn = [f'<text x="{_LEFT}" y="14">{_text(y_label)}</text>']
    drawn.append(f'<text x="{_WIDTH - 20}" y="{_HEIGHT - 4}" text-anchor="end">{_text(x_label)}</text>')
    for x in sorted({x for x, _ in points}):
        drawn.append(f'<text x="{across(x):.1f}" y="{_HEIGHT - 22}" text-anchor="middle">{x:g}</text>')
    low, high = min(y for _, y in points), max(y for _, y in points)
    for y in sorted({low, math.sqrt(low * high), high}):
        drawn.append(f'<text x="{_LEFT - 8}" y="{up(y) + 4:.1f}" text-anchor="end">{_text(_number(y))}</text>')
        line = f'x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{up(y):.1f}" y2="{up(y):.1f}"'
        drawn.append(f'<line {line} stroke="#8884"/>')
    for series, colour, dash, name in ((planned, _PLANNED, "6 4", "planned"), (measured, _MEASURED, "", "measured")):
        places = [(across(x), up(y)) for x, y in series if x > 0 and y > 0]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-dasharray="{dash}"/>')
        if name == "measured":
            drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in places]
    legend = f'<tspan fill="{_MEASURED}">measured</tspan> <tspan fill="{_PLANNED}">planned (dashed)</tspan>'
    drawn.append(f'<text x="{_WIDTH - 20}" y="14" text-anchor="end">{legend}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_text(y_label)}">{"".join(drawn)}</svg>'


def _scale(values: Sequence[float], low: float, high: float) -> Any:
    least, most = math.log(min(values)), math.log(max(values))
    span = (most - least) or 1.0
    return lambda value: low + (high - low) * (math.log(value) - least) / span


def _text(value: Any) -> str:
    return escaping.escape(str(value))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value * 1000:,.3g} ms" if value < 1 else f"{value:,.3g} s"
