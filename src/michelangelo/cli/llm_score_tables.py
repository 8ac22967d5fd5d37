"""What `mactl llm score` prints of a report, a sweep or a look at the first prompts, as titles and texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["dry_rows", "report_rows", "sweep_rows"]

_MAX_ERRORS: Final = 5
_MAX_TEXT: Final = 100


def report_rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of a job."""
    rows, session = report["rows"], report["session"]
    yield "output", report["output"]
    yield "rows", f"{rows['scored']:,} scored, {rows['failed']:,} failed, {rows['rescored']:,} scored again"
    for error in report["errors"][:_MAX_ERRORS]:
        yield "  failed", f"{error['rows']:,} x {_short(error['reason'])}"
    tokens = report["tokens"]
    cached = f", {tokens['cached']:,} of the prompts' from a cache" if tokens["cached"] else ""
    yield "tokens", f"{tokens['prompt']:,} in, {tokens['output']:,} out{cached}"
    yield (
        "tokens/s",
        f"{_number(session['output_tokens_per_second'])} out, {_number(session['prompt_tokens_per_second'])} in",
    )
    yield "rows/s", _number(session["rows_per_second"])
    for title, name in (("first token", "first_token_seconds"), ("latency", "latency_seconds")):
        spread = report[name]
        if spread["p50"] is not None:
            yield title, f"p50 {_seconds(spread['p50'])}, p95 {_seconds(spread['p95'])}"
    if report["utilisation"] is not None:
        yield "utilisation", f"{report['utilisation']:.0%} of what the engines take at once"
    for one in report["replicas"]:
        lost = f", lost: {_short(one['error'])}" if one["error"] else ""
        speed = _number(one["output_tokens_per_second"])
        yield f"  {one['name']}", f"{one['rows']:,} rows, {speed} tokens/s, {one['engine'] or 'no engine'}{lost}"
    yield from _accuracy(report)
    yield from _cost(report["cost"])
    yield from _prediction(report["prediction"])
    yield "report", report["folder"] + "/report.html"


def sweep_rows(swept: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of a sweep."""
    yield "rows", f"{swept['rows']:,} for each point, {swept['engine']}"
    most = max((point["output_tokens_per_second"] for point in swept["points"]), default=1.0) or 1.0
    yield "at once", f"{'tokens/s':>12}  {'planned':>12}  {'first token':>11}  {'p95':>9}"
    for point in swept["points"]:
        planned = _number(point["predicted"]) if point["predicted"] else ""
        mark = " knee" if point["batch"] == swept["knee"] else ""
        bar = "#" * max(1, round(24 * point["output_tokens_per_second"] / most))
        first = _seconds(point["first_token_seconds"]["p50"])
        speed = _number(point["output_tokens_per_second"])
        late = _seconds(point["latency_seconds"]["p95"])
        yield f"{point['batch']}{mark}", f"{speed:>12}  {planned:>12}  {first:>11}  {late:>9}  {bar}"
    yield "linear up to", f"{swept['linear_up_to']:,}, knee at {swept['knee']:,}"
    if swept["message"]:
        yield "plan", swept["message"]
    yield "report", swept["report"]


def dry_rows(look: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of a look at the first rows."""
    for path in look["files"]:
        yield "file", path
    for row in look["rows"]:
        yield row["place"], _short(f"error: {row['error']}" if row["error"] else row["prompt"])
    if "message" in look["prediction"]:
        yield "prediction", look["prediction"]["message"]
    else:
        yield from _prediction({"before": look["prediction"], "after": {}})


def _accuracy(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "accuracy" in report:
        yield "accuracy", f"{report['accuracy']['share']:.2%} of {report['accuracy']['rows']:,} rows"


def _cost(cost: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if cost["total"] is None:
        return
    each = cost["per_million_output_tokens"]
    rate = f", {each:.4g} USD per million tokens out" if each is not None else ""
    whole = cost["per_million_tokens"]
    rate += f", {whole:.4g} in all" if whole is not None else ""
    yield "cost", f"{cost['total']:.4g} USD{rate}"


def _prediction(prediction: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for title, name in (("planned before", "before"), ("planned after", "after")):
        one = prediction.get(name) or {}
        if "output_tokens_per_second" in one:
            interval = f"{_number(one['low'])} to {_number(one['high'])}"
            error = f", {one['error']:+.0%} off" if one.get("error") is not None else ""
            yield title, f"{_number(one['output_tokens_per_second'])} tokens/s per replica ({interval}){error}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value * 1000:,.3g} ms" if value < 1 else f"{value:,.3g} s"


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _MAX_TEXT else f"{flat[: _MAX_TEXT - 3]}..."
