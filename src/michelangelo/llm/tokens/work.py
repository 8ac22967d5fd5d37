"""One question, from what is asked to the report: count, estimate, convert, compare.

This is what `mactl tokens` calls, and what a program may call that wants the whole answer. It prints nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from michelangelo import errors
from michelangelo.llm.tokens import (
    budget,
    counting,
    diff,
    images,
    pilots,
    pipeline,
    prices,
    self_hosted,
    sources,
    templates,
    tokenizers,
)
from michelangelo.llm.tokens import estimate as estimating
from michelangelo.llm.tokens.counting import Counted
from michelangelo.llm.tokens.counts import Count
from michelangelo.llm.tokens.estimate import Calls, Lengths, Share
from michelangelo.llm.tokens.report import Report

__all__ = ["Asked", "compared", "make", "prompts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked for, as words of a command line are. Empty: not asked for."""

    model: str = "gpt-4o-mini"
    provider: str = ""
    tokenizer: str = ""
    column: str = ""
    template: str = ""
    images: tuple[str, ...] = ()
    pipeline: str = ""
    calls: int | None = None
    output_tokens: str = ""
    pilot: str = ""
    reasoning_tokens: int = 0
    retries: str = "0"
    cached: str = "0"
    batch: bool = False
    at: datetime.date | None = None
    own_prices: str = ""
    level: float = 0.9
    currency: str = "USD"
    rates: tuple[str, ...] = ()
    self_hosted: str = ""
    hardware: str = "h100"
    gpu_hour: float | None = None
    budget: str = ""
    count_only: bool = False
    processes: int = 1


def make(paths: Sequence[str], asked: Asked) -> Report:
    """Count and estimate. Raises PricingError; a price that nobody knows only if a budget depends on it."""
    given = budget.parse_rates(asked.rates)
    rate = budget.rate_of(asked.currency, given)
    limit = budget.parse(asked.budget) if asked.budget else None
    limit_usd = limit.amount / budget.rate_of(limit.currency, given).per_usd if limit else 0.0
    own = prices.read_own(asked.own_prices) if asked.own_prices else ()
    problems = sources.Problems()
    if asked.pipeline:
        stages = pipeline.stages(pipeline.read(asked.pipeline), problems, own=own)
        items = [Counted(stage.name, stage.input, stage.calls) for stage in stages]
        model = ", ".join(dict.fromkeys(stage.model for stage in stages))
    else:
        items = _items(paths, asked, problems)
        stages = [_calls(items, asked, own)]
        model = asked.model
    total = sum((item.count for item in items[1:]), start=items[0].count) if items else _nothing(asked)
    made = None
    no_price = ""
    if not asked.count_only:
        try:
            made = estimating.estimate(stages, level=asked.level, at=asked.at)
        except errors.PricingError as e:
            if limit or "no price is known" not in e.message:
                raise
            no_price = e.message
    calls = sum(stage.calls for stage in stages)
    hosted = None
    if asked.self_hosted and made:
        hosted = self_hosted.predict(made, calls, asked.self_hosted, asked.hardware, per_gpu_hour=asked.gpu_hour)
    outputs = "; ".join(dict.fromkeys(_said(stage.output) for stage in stages))
    return Report(model, items, total, calls, problems, made, rate, no_price, hosted, limit, limit_usd, outputs)


def compared(base: str, paths: Sequence[str], asked: Asked, after: Report) -> str:
    """Markdown of `after` against the base: a JSON report, a path, or a revision of git. Raises PricingError."""
    if diff.is_report(base):
        return diff.markdown(diff.read(base), after.to_dict(), base)
    if asked.pipeline:
        raise errors.PricingError(f"--diff {base}: a pipeline is compared with a report that -o json wrote")
    asked = dataclasses.replace(asked, budget="", self_hosted="", images=())
    if Path(base).exists():
        before = _relative(make([base], asked).to_dict(), [base])
        return diff.markdown(before, _relative(after.to_dict(), list(paths)), base)
    with diff.at_revision(base, paths) as (folder, there):
        found = [str(folder / path) for path in there]
        before = _relative(make(found, asked).to_dict(), [str(folder)])
        top = diff.top_of(paths)
        named = after.to_dict()
        for item in named["items"]:
            whole = Path(item["name"]).resolve()
            item["name"] = whole.relative_to(top).as_posix() if whole.is_relative_to(top) else item["name"]
        return diff.markdown(before, named, base)


def prompts(
    paths: Sequence[str], model: str, values: Mapping[str, str], hole_tokens: int, *, tokenizer: str = ""
) -> list[dict[str, Any]]:
    """The templates in files and folders, with their tokens and holes. Raises PricingError."""
    made = []
    for path in _template_files(paths):
        for prompt in templates.find(path):
            count = templates.count(prompt, model, values=values, assumed=hole_tokens, tokenizer=tokenizer)
            holes = [
                {
                    "name": hole.name,
                    "line": hole.line,
                    "filled": "given" if hole.name in values else f"{hole_tokens} tokens assumed",
                }
                for hole in prompt.holes
            ]
            made.append({"name": prompt.name, "kind": prompt.kind, **count.to_dict(), "holes": holes})
    if not made:
        raise errors.PricingError(f"no template is in {', '.join(paths)}: give .py with f-strings, or Jinja files")
    return made


def _template_files(paths: Sequence[str]) -> list[str]:
    made: list[str] = []
    for path in paths:
        if Path(path).is_dir():
            problems = sources.Problems()
            made += [i.name for i in sources.items([path], problems) if i.name.endswith(templates.ENDINGS)]
        else:
            made.append(path)
    return made


def _items(paths: Sequence[str], asked: Asked, problems: sources.Problems) -> list[Counted]:
    render = None
    if asked.template:
        template = templates.compiled(asked.template, "the template")

        def render(row: Mapping[str, Any]) -> str:
            return templates.render(template, row)

    found = sources.items(paths, problems, column=asked.column, render=render)
    made = list(counting.count_items(found, asked.model, tokenizer=asked.tokenizer, num_processes=asked.processes))
    for image in asked.images:
        number = images.count(asked.model, *images.size_of(image))
        made.append(Counted(image, Count(number, number, number, True, f"{asked.model}: rule for images")))
    return made


def _calls(items: Sequence[Counted], asked: Asked, own: tuple[prices.OwnPrice, ...]) -> Calls:
    total = sum((item.count for item in items[1:]), start=items[0].count) if items else _nothing(asked)
    sent = [(item.row_tokens or (() if item.rows or _is_rows(item.name) else (item.count.tokens,))) for item in items]
    row_tokens = [tokens for one in sent for tokens in one]
    calls = len(row_tokens)
    if asked.calls is not None:
        if asked.calls < 0:
            raise errors.PricingError(f"{asked.calls} calls cannot be: give 0 or more")
        # The same rows, sent so many times in all.
        scale = asked.calls / max(1, calls)
        calls = asked.calls
        low, middle, high = (round(n * scale) for n in (total.low, total.tokens, total.high))
        total = Count(middle, low, high, total.is_exact, total.tokenizer)
    return Calls(
        name=asked.model,
        model=asked.model,
        provider=asked.provider,
        calls=calls,
        input=total,
        row_tokens=row_tokens,
        output=_lengths(asked),
        reasoning_tokens=asked.reasoning_tokens,
        retries=Share.parse(asked.retries),
        cached=Share.parse(asked.cached),
        batch=asked.batch,
        own=own,
    )


def _is_rows(name: str) -> bool:
    return name.endswith((".jsonl", ".ndjson", ".parquet"))


def _lengths(asked: Asked) -> Lengths:
    if asked.pilot:
        return pilots.read(asked.pilot, asked.model, tokenizer=asked.tokenizer)
    if not asked.output_tokens:
        return Lengths()
    low, _, high = asked.output_tokens.partition(":")
    try:
        numbers = {"p50": float(low), **({"p95": float(high)} if high else {})}
    except ValueError as e:
        raise errors.PricingError(f"output tokens {asked.output_tokens!r}: write P50 or P50:P95, as 200:700") from e
    return pipeline.lengths(numbers, asked.model)


def _said(output: Lengths) -> str:
    p50, p95 = output.quantiles
    return f"each p50 {p50:,.0f}, p95 {p95:,.0f}; {output.source}"


def _nothing(asked: Asked) -> Count:
    chosen = tokenizers.for_model(asked.model, tokenizer=asked.tokenizer)
    return Count(0, 0, 0, chosen.is_exact, chosen.name)


def _relative(document: dict[str, Any], roots: Sequence[str]) -> dict[str, Any]:
    """Names as seen from the path that was named, so that two folders can be compared."""
    for item in document["items"]:
        for root in roots:
            if Path(item["name"]).is_relative_to(root):
                item["name"] = Path(item["name"]).relative_to(root).as_posix()
                if item["name"] == ".":
                    item["name"] = Path(root).name if len(roots) > 1 else "the file"
                break
    return document
