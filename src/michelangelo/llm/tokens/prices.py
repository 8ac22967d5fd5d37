"""What one call costs, each token counted once, at the price of its day; with where that price is from.

Prices are those of genai-prices (bundled with it, offline, MIT), of a file of one's own, or both. The many ways in
which vendors report usage become one `Usage` first, in which cached tokens are a part of the input and reasoning is a
part of the output: what is counted twice or not at all by others is a matter of mistaking one for the other.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml

from michelangelo import errors

__all__ = ["Cost", "OwnPrice", "Usage", "cost", "read_own", "usage_of"]

_BATCH_SHARE: Final = Decimal("0.5")
"""What OpenAI, Anthropic and Google ask for a batch, of the standard price; taken where no batch price is dated."""
_MILLION: Final = Decimal(1_000_000)
_MOST_TOKENS: Final = 10**15
_OWN_FIELDS: Final = ("input", "cached", "cache_write", "output", "reasoning")
_ROW_FIELDS: Final = {"model", "provider", "date", "source", *_OWN_FIELDS}
_MAX_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a call. cached and cache_write are parts of input; reasoning is a part of output.

    Raises PricingError if a number is negative, absurd, or a part is more than its whole.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0

    def __post_init__(self) -> None:
        wrong = [
            f"{name} is {value!r}"
            for name in ("input", "output", "cached", "cache_write", "reasoning")
            if isinstance(value := getattr(self, name), bool)
            or not isinstance(value, int)
            or not 0 <= value <= _MOST_TOKENS
        ]
        if not wrong and self.cached + self.cache_write > self.input:
            wrong.append(f"cached {self.cached} + cache_write {self.cache_write} are more than input {self.input}")
        if not wrong and self.reasoning > self.output:
            wrong.append(f"reasoning {self.reasoning} is more than output {self.output}")
        if wrong:
            raise errors.PricingError(f"usage: {'; '.join(wrong)}: give counts of tokens, parts within their wholes")


@dataclass(frozen=True, slots=True)
class OwnPrice:
    """A price of one's own, USD per million tokens, from `date` on. A part without a price has that of its whole."""

    model: str
    date: datetime.date
    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None
    provider: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """In USD; total = input + output. What is neither, such as searches, is not priced."""

    total: Decimal
    input: Decimal
    output: Decimal
    model: str
    provider: str
    priced_at: datetime.date
    provenance: str
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "totalUsd": float(self.total),
            "inputUsd": float(self.input),
            "outputUsd": float(self.output),
            "model": self.model,
            "provider": self.provider,
            "pricedAt": self.priced_at.isoformat(),
            "provenance": self.provenance,
            "notes": list(self.notes),
        }


def usage_of(reported: Mapping[str, Any]) -> Usage:
    """What a vendor's response says in `usage` (or `usageMetadata`), by its own words. Raises PricingError.

    - `promptTokenCount`: Gemini; the cached are within the prompt, thoughts are beside the candidates
      (ai.google.dev/api/generate-content#UsageMetadata).
    - `prompt_tokens`: OpenAI, xAI, LiteLLM; the cached and the written are within the prompt, reasoning is within the
      completion (platform.openai.com/docs/api-reference/chat/object).
    - `input_tokens` with `input_tokens_details`: OpenAI Responses; likewise.
    - `input_tokens` otherwise: Anthropic; the cached and the written are beside the input
      (docs.anthropic.com/en/docs/build-with-claude/prompt-caching).
    """
    if "promptTokenCount" in reported:
        thoughts = _count(reported, "thoughtsTokenCount")
        return Usage(
            input=_count(reported, "promptTokenCount") + _count(reported, "toolUsePromptTokenCount"),
            cached=_count(reported, "cachedContentTokenCount"),
            output=_count(reported, "candidatesTokenCount") + thoughts,
            reasoning=thoughts,
        )
    if "prompt_tokens" in reported:
        return _openai(reported, "prompt_tokens", "completion_tokens")
    if "input_tokens_details" in reported:
        return _openai(reported, "input_tokens", "output_tokens")
    if "input_tokens" in reported:
        cached, written = _count(reported, "cache_read_input_tokens"), _count(reported, "cache_creation_input_tokens")
        details = reported.get("output_tokens_details") or {}
        return Usage(
            input=_count(reported, "input_tokens") + cached + written,
            cached=cached,
            cache_write=written,
            output=_count(reported, "output_tokens"),
            reasoning=_count(details, "thinking_tokens"),
        )
    raise errors.PricingError(
        "usage: none of promptTokenCount, prompt_tokens, input_tokens is in it: give a response's usage as it came"
    )


def cost(
    usage: Usage,
    model: str,
    provider: str = "",
    at: datetime.date | None = None,
    *,
    batch: bool = False,
    own: tuple[OwnPrice, ...] = (),
) -> Cost:
    """The price of one call (its tier depends on the length of this one prompt). Raises PricingError without a price.

    at: the day of the call, today if None. batch: sent through the vendor's batch API. own: prices that go before.
    """
    day = at or datetime.datetime.now(tz=datetime.UTC).date()
    mine = [row for row in own if row.model == model and provider in ("", row.provider or provider)]
    if mine:
        return _own_cost(usage, mine, day, is_batch=batch)
    return _listed_cost(usage, model, provider, day, is_batch=batch)


def read_own(path: str) -> tuple[OwnPrice, ...]:
    """A YAML or JSON list of prices: model, date, input, output, and what else OwnPrice has. Raises PricingError."""
    try:
        data = Path(path).read_bytes()
        rows = yaml.safe_load(data[:_MAX_BYTES])
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as e:
        raise errors.PricingError(f"{path}: these prices cannot be read: {e}") from e
    if not isinstance(rows, list) or not rows:
        raise errors.PricingError(f"{path}: give a list of prices, each with model, date, input and output")
    made: list[OwnPrice] = []
    wrong: list[str] = []
    for index, row in enumerate(rows):
        faults = _faults(row)
        wrong += [f"  [{index}]{fault}" for fault in faults]
        if not faults:
            numbers = {name: Decimal(str(row[name])) for name in _OWN_FIELDS if row.get(name) is not None}
            words = {name: str(row.get(name) or "") for name in ("provider", "source")}
            made.append(OwnPrice(model=row["model"], date=_day(row["date"]), **numbers, **words))  # type: ignore[arg-type]
    if wrong:
        raise errors.PricingError(f"{path}: prices that cannot be:\n" + "\n".join(wrong[:20]))
    return tuple(made)


def _openai(reported: Mapping[str, Any], inputs: str, outputs: str) -> Usage:
    details = reported.get(f"{inputs}_details") or {}
    # LiteLLM names Anthropic's parts beside the details, which say the same.
    cached = _count(details, "cached_tokens") or _count(reported, "cache_read_input_tokens")
    written = _count(details, "cache_creation_tokens") or _count(reported, "cache_creation_input_tokens")
    reasoning = _count(reported.get(f"{outputs}_details") or {}, "reasoning_tokens")
    output = _count(reported, outputs)
    total = _count(reported, "total_tokens")
    if reasoning and total == _count(reported, inputs) + output + reasoning:
        # xAI and some gateways report reasoning beside the completion: the total tells.
        output += reasoning
    return Usage(input=_count(reported, inputs), cached=cached, cache_write=written, output=output, reasoning=reasoning)


def _count(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name) or 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise errors.PricingError(f"usage: {name} is {value!r}, which is no count of tokens")
    return value


def _own_cost(usage: Usage, rows: list[OwnPrice], day: datetime.date, *, is_batch: bool) -> Cost:
    begun = sorted((row for row in rows if row.date <= day), key=lambda row: row.date)
    if not begun:
        first = min(row.date for row in rows)
        raise errors.PricingError(
            f"model {rows[0].model!r} on {day}: your own prices begin on {first}; add one that is in force on that day"
        )
    price = begun[-1]
    share = _BATCH_SHARE if is_batch else Decimal(1)
    plain = usage.input - usage.cached - usage.cache_write
    inputs = (
        plain * price.input
        + usage.cached * _or(price.cached, price.input)
        + usage.cache_write * _or(price.cache_write, price.input)
    )
    outputs = (usage.output - usage.reasoning) * price.output + usage.reasoning * _or(price.reasoning, price.output)
    inputs, outputs = inputs * share / _MILLION, outputs * share / _MILLION
    notes = ("batch: half of the standard price",) if is_batch else ()
    where = f"own price from {price.date}" + (f", {price.source}" if price.source else "")
    return Cost(inputs + outputs, inputs, outputs, price.model, price.provider, day, where, notes)


def _listed_cost(usage: Usage, model: str, provider: str, day: datetime.date, *, is_batch: bool) -> Cost:
    library = importlib.import_module("genai_prices")
    # The parts as the library counts them: cached and written within the input, reasoning within the output.
    asked = library.Usage(
        input_tokens=usage.input,
        cache_read_tokens=usage.cached,
        cache_write_tokens=usage.cache_write,
        output_tokens=usage.output,
        output_reasoning_tokens=usage.reasoning,
    )
    moment = datetime.datetime.combine(day, datetime.time(12), tzinfo=datetime.UTC)
    context = {"processing": "batch"} if is_batch else None
    owner, _, short = model.rpartition("/")
    found, known = _find(owner, short, provider)
    made = known.calc_price(asked, found, genai_request_timestamp=moment, price_context=context)
    total, inputs, outputs = made.total_price, made.input_price, made.output_price
    notes: list[str] = []
    if is_batch:
        standard = known.calc_price(asked, found, genai_request_timestamp=moment)
        if standard.total_price == total:
            total, inputs, outputs = total * _BATCH_SHARE, inputs * _BATCH_SHARE, outputs * _BATCH_SHARE
            notes.append("batch: no batch price is dated for this day, so half of the standard price")
    where = f"genai-prices {library.__version__}, {_in_force(known, day)}"
    if found.pricing_urls:
        where += f", {found.pricing_urls[0]}"
    return Cost(total, inputs, outputs, known.id, found.id, day, where, tuple(notes))


@functools.lru_cache(maxsize=256)
def _find(owner: str, short: str, provider: str) -> tuple[Any, Any]:
    snapshot = importlib.import_module("genai_prices.data_snapshot").get_snapshot()
    whole = f"{owner}/{short}" if owner else short
    tries = [(whole, provider or None), (short, provider or None)]
    if owner and not provider:
        tries.insert(0, (short, owner))
    for name, where in tries:
        try:
            found: tuple[Any, Any] = snapshot.find_provider_model(name, None, where, None)
        except LookupError:
            continue
        return found
    ids = {known.id for each in snapshot.providers if provider in ("", each.id) for known in each.models}
    near = difflib.get_close_matches(short, sorted(ids), n=4, cutoff=0.4)
    hint = f"; did you mean {', '.join(near)}?" if near else ";"
    at = f" at {provider!r}" if provider else ""
    raise errors.PricingError(f"model {whole!r}{at}: no price is known{hint} Or give your own in a file of prices")


def _in_force(known: Any, day: datetime.date) -> str:
    """Since when the price holds, as far as the library dates it."""
    if not isinstance(known.prices, list):
        return "one undated price"
    starts = [getattr(row.constraint, "start_date", None) for row in known.prices]
    begun = [start for start in starts if start is not None and start <= day]
    return f"price since {max(begun)}" if begun else "the earliest price, undated"


def _faults(row: Any) -> list[str]:
    if not isinstance(row, Mapping):
        return [f": {row!r} is no price: give model, date, input and output"]
    made = [f".{name}: unknown; known are {', '.join(sorted(_ROW_FIELDS))}" for name in row.keys() - _ROW_FIELDS]
    if not isinstance(row.get("model"), str) or not row["model"]:
        made.append(".model: missing: the name as calls give it")
    if _day(row.get("date")) is None:
        made.append(f".date: {row.get('date')!r} is no day such as 2026-01-31")
    for name in _OWN_FIELDS:
        value = row.get(name)
        if value is None and name not in ("input", "output"):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
            made.append(f".{name}: {value!r} is no price in USD per million tokens")
    return made


def _day(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, datetime.date):
        return value
    try:
        return datetime.date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _or(value: Decimal | None, other: Decimal) -> Decimal:
    return other if value is None else value
