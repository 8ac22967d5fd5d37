"""Tables of `mactl tokens`: a report for people, and as Markdown. It counts nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from michelangelo.cli import table

__all__ = ["lines", "markdown", "over_budget", "prompt_lines"]

_MOST_ITEMS: Final = 40


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal."""
    shown = sorted(report["items"], key=lambda item: -item["tokens"])
    rows = [("TOKENS", "ROWS", "NAME")]
    rows += [(_tokens(item), f"{item['rows']:,}" if item["rows"] else "", item["name"]) for item in shown[:_MOST_ITEMS]]
    if len(shown) > _MOST_ITEMS:
        rows.append((f"{sum(item['tokens'] for item in shown[_MOST_ITEMS:]):,}", "", "… more"))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for row in rows:
        yield f"{row[0]:>{widths[0]}}   {row[1]:>{widths[1]}}   {row[2]}"
    yield ""
    for title, text in _facts(report):
        yield f"{title:<12} {text}"


def markdown(report: Mapping[str, Any]) -> str:
    """A table of the facts."""
    made = ["| | |", "| --- | --- |"]
    made += [f"| {title} | {text.replace('|', chr(92) + '|')} |" for title, text in _facts(report)]
    return "\n".join(made) + "\n"


def over_budget(report: Mapping[str, Any]) -> str:
    """One sentence."""
    budget, cost = report["budget"], report["cost"]
    return (
        f"over budget: up to {_money(cost['high'], cost['currency'])} at {cost['level']:.0%}, the budget is "
        f"{_money(budget['amount'], budget['currency'])}; send less, take a cheaper model, or give a better pilot"
    )


def prompt_lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of --prompts."""
    for prompt in found:
        sure = "exact" if prompt["exact"] else "assumed"
        yield f"{prompt['tokens']:>8,}   {sure}   {prompt['kind']}   {prompt['name']}"
        for hole in prompt["holes"]:
            yield f"{'':>8}   {{{hole['name']}}}: {hole['filled']}"


def _facts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    total = report["total"]
    yield "tokens", f"{_tokens(total)}, {'exact' if total['exact'] else 'estimated'}, by {total['tokenizer']}"
    yield "calls", f"{report['calls']:,} of {report['model']}"
    estimate, cost = report["estimate"], report["cost"]
    if estimate:
        yield "output", f"{_range(estimate['outputTokens'])} tokens ({report['outputLength']})"
        yield (
            "cost",
            f"{_money(cost['middle'], cost['currency'])} ({_money(cost['low'], cost['currency'])} to "
            f"{_money(cost['high'], cost['currency'])} at {cost['level']:.0%})",
        )
        if len(estimate["stages"]) > 1:
            for stage in estimate["stages"]:
                usd = stage["usd"]
                yield "  stage", f"{stage['name']}: ${usd['middle']:,.4g} (${usd['low']:,.4g} to ${usd['high']:,.4g})"
        for text in estimate["prices"]:
            yield "price", text
        for text in estimate["notes"]:
            yield "note", text
        if cost["currency"] != "USD":
            yield "rate", f"{cost['perUsd']:.5g} {cost['currency']} for 1 USD: {cost['rate']}"
        yield "method", estimate["method"]
    elif report["noPrice"]:
        yield "cost", f"unknown: {report['noPrice']}"
    hosted = report["selfHosted"]
    if hosted:
        usd = hosted["usd"]
        yield (
            "self-hosted",
            f"{_money(usd['middle'], 'USD')} ({_money(usd['low'], 'USD')} to {_money(usd['high'], 'USD')}): "
            f"{hosted['model']} on {hosted['hardware']}, {hosted['hours']:,.3g} hours, {hosted['price']}",
        )
    problems = report["problems"]
    if problems["skippedFiles"] or problems["malformedRows"]:
        files, rows = problems["skippedFiles"], problems["malformedRows"]
        yield "left out", f"{table.counted(files, 'file')}, {table.counted(rows, 'row')}"
        for text in problems["first"]:
            yield "", text


def _tokens(item: Mapping[str, Any]) -> str:
    if item["low"] == item["high"]:
        return f"{item['tokens']:,}"
    return f"{item['tokens']:,} ({item['low']:,} to {item['high']:,})"


def _range(interval: Mapping[str, float]) -> str:
    return f"{interval['middle']:,.0f} ({interval['low']:,.0f} to {interval['high']:,.0f})"


def _money(amount: float, currency: str) -> str:
    return f"{amount:,.2f} {currency}" if amount >= 100 else f"{amount:.4g} {currency}"
