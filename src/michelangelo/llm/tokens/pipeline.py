"""A pipeline as a file: stages, each with a model, a template, fan-out, retries and caching → calls to be estimated.

    rows: reviews.jsonl            # or a number, or nothing where the caller has the rows
    stages:
      - name: extract
        model: gpt-4o-mini
        template: "List the claims of this review: {{ text }}"
        output: {p50: 120, p95: 400}         # or {pilot: outputs.jsonl}
      - name: check
        model: claude-sonnet-4-5
        template: "Is this claim true? {{ previous }}"
        fan_out: 5                  # calls for each call of the stage before
        retries: 12/400
        cached: 60%
        batch: true

`{{ previous }}` is the output of the stage before; other names are columns of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from michelangelo import errors
from michelangelo.llm.tokens import counting, pilots, sources, templates
from michelangelo.llm.tokens.counts import Count
from michelangelo.llm.tokens.estimate import Calls, Lengths, Share
from michelangelo.llm.tokens.prices import OwnPrice

__all__ = ["lengths", "read", "stages"]

_FIELDS: Final = {
    "name", "model", "provider", "tokenizer", "template", "input_tokens", "fan_out", "output", "reasoning_tokens",
    "retries", "cached", "batch",
}  # fmt: skip
_MAX_BYTES: Final = 1 << 20
_MOST: Final = 10**9


def read(path: str) -> dict[str, Any]:
    """The document, checked. Raises PricingError with all that is wrong in it."""
    try:
        document = yaml.safe_load(Path(path).read_bytes()[:_MAX_BYTES])
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as e:
        raise errors.PricingError(f"{path}: no pipeline that can be read: {e}") from e
    if not isinstance(document, dict) or not isinstance(document.get("stages"), list) or not document["stages"]:
        raise errors.PricingError(f"{path}: give `stages`, a list of at least one, and `rows`")
    wrong = [f"  {name}: unknown; known are rows and stages" for name in document.keys() - {"rows", "stages"}]
    rows = document.get("rows")
    if rows is not None and not _is_count(rows) and not isinstance(rows, str):
        wrong.append(f"  rows: {rows!r} is no number of rows and no file")
    for index, stage in enumerate(document["stages"]):
        wrong += [f"  stages[{index}]{fault}" for fault in _faults(stage)]
    if wrong:
        raise errors.PricingError(f"{path}: a pipeline that cannot be:\n" + "\n".join(wrong[:20]))
    return document


def stages(
    document: Mapping[str, Any],
    problems: sources.Problems,
    *,
    own: tuple[OwnPrice, ...] = (),
) -> list[Calls]:
    """The calls of each stage. Bad rows are counted in `problems` and left out. Raises PricingError."""
    rows = document.get("rows")
    made: list[Calls] = []
    for position, stage in enumerate(document["stages"]):
        before = made[-1] if made else None
        units = before.calls if before else (rows if isinstance(rows, int) else 0)
        count, num_rows, row_tokens = _input(stage, rows, before, problems if position == 0 else sources.Problems())
        if isinstance(rows, str) and before is None:
            units = num_rows
        fan_out = stage.get("fan_out", 1)
        calls = round(units * fan_out)
        # A call reads what one row makes: the sum over the rows is that of one call of each.
        scale = calls / num_rows if num_rows else 0.0
        made.append(
            Calls(
                name=stage.get("name") or f"stage {position + 1}",
                model=stage["model"],
                provider=stage.get("provider", ""),
                calls=calls,
                input=_scaled(count, scale),
                row_tokens=row_tokens,
                output=lengths(stage.get("output") or {}, stage["model"], stage.get("tokenizer", "")),
                reasoning_tokens=stage.get("reasoning_tokens", 0),
                retries=Share.parse(str(stage.get("retries", 0))),
                cached=Share.parse(str(stage.get("cached", 0))),
                batch=bool(stage.get("batch", False)),
                own=own,
            )
        )
    return made


def lengths(given: Mapping[str, Any], model: str, tokenizer: str = "") -> Lengths:
    """{p50, p95} or {pilot}; nothing: what Lengths assumes. Raises PricingError."""
    if "pilot" in given:
        return pilots.read(str(given["pilot"]), model, tokenizer=tokenizer)
    if "p50" not in given:
        return Lengths()
    p50 = float(given["p50"])
    p95 = float(given.get("p95", 3 * p50))
    return Lengths(p50=p50, p95=p95, source=f"given: p50 {p50:g}, p95 {p95:g}")


def _input(
    stage: Mapping[str, Any], rows: Any, before: Calls | None, problems: sources.Problems
) -> tuple[Count, int, tuple[int, ...]]:
    """Tokens of one call for each row, how many rows that was, and each row's."""
    model, tokenizer = stage["model"], stage.get("tokenizer", "")
    previous = round(before.output.mean) if before else 0
    source = str(stage.get("template") or "{{ previous }}") if before else str(stage.get("template") or "")
    fixed = _fixed(stage)
    if isinstance(rows, str):
        render = _renderer(source) if source else None
        found = counting.count_items(sources.items([rows], problems, render=render), model, tokenizer=tokenizer)
        (counted,) = found
        added = fixed + (previous if "previous" in source else 0)
        whole = counted.count + _plain(added * counted.rows, counted.count, is_exact=added == 0)
        return whole, counted.rows, tuple(tokens + added for tokens in counted.row_tokens)
    prompt = templates.of_jinja(source, stage.get("name", "template"))
    known = {"previous": ""} if before else {}
    empty = templates.count(prompt, model, values=known, assumed=0, tokenizer=tokenizer)
    added = fixed + (previous if any(hole.name == "previous" for hole in prompt.holes) else 0)
    return empty + _plain(added, empty, is_exact=False), 1, ()


def _renderer(source: str) -> Callable[[Mapping[str, Any]], str]:
    template = templates.compiled(source)
    return lambda row: templates.render(template, {"previous": "", **row})


def _fixed(stage: Mapping[str, Any]) -> int:
    return int(stage.get("input_tokens") or 0)


def _plain(tokens: int, like: Count, *, is_exact: bool) -> Count:
    return Count(tokens, tokens, tokens, is_exact, like.tokenizer)


def _scaled(count: Count, scale: float) -> Count:
    return Count(
        round(count.tokens * scale),
        round(count.low * scale),
        round(count.high * scale),
        count.is_exact,
        count.tokenizer,
        round(count.characters * scale),
    )


def _faults(stage: Any) -> Iterator[str]:
    if not isinstance(stage, dict):
        yield f": {stage!r} is no stage: give a model and a template"
        return
    for name in sorted(stage.keys() - _FIELDS):
        yield f".{name}: unknown; known are {', '.join(sorted(_FIELDS))}"
    if not isinstance(stage.get("model"), str):
        yield ".model: missing"
    for name in ("input_tokens", "reasoning_tokens"):
        if name in stage and not _is_count(stage[name]):
            yield f".{name}: {stage[name]!r} is no count of tokens"
    fan_out = stage.get("fan_out", 1)
    if isinstance(fan_out, bool) or not isinstance(fan_out, int | float) or not 0 < fan_out <= 1e6:
        yield f".fan_out: {fan_out!r} is not above 0 and up to 1,000,000"
    given = stage.get("output") or {}
    if not isinstance(given, dict) or given.keys() - {"p50", "p95", "pilot"}:
        yield f".output: {given!r}: give p50 and p95, or pilot"
    else:
        yield from (
            f".output.{name}: {given[name]!r} is no number above 0"
            for name in ("p50", "p95")
            if name in given and not _is_positive(given[name])
        )
    yield from _share_faults(stage)


def _share_faults(stage: Mapping[str, Any]) -> Iterator[str]:
    for name in ("retries", "cached"):
        try:
            Share.parse(str(stage.get(name, 0)))
        except errors.PricingError as e:
            yield f".{name}: {e.message}"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _MOST
