"""Prices: every token once. The numbers are those of public bug reports of other programs, and of invoices in them."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.tokens import prices

DAY = datetime.date(2025, 9, 24)


def _own(**values: Any) -> tuple[prices.OwnPrice, ...]:
    numbers: dict[str, Any] = {name: Decimal(str(value)) for name, value in values.items()}
    return (prices.OwnPrice(model="m", date=datetime.date(2025, 1, 1), **numbers),)


def test_cached_tokens_of_gemini_are_counted_once() -> None:
    """BerriAI/litellm#14849: 0.7642 was charged, 0.1849 is right at the rates of the report."""
    reported = {
        "total_tokens": 264704,
        "prompt_tokens": 262960,
        "completion_tokens": 1744,
        "prompt_tokens_details": {"text_tokens": 262960, "cached_tokens": 257955},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    usage = prices.usage_of(reported)
    made = prices.cost(usage, "m", at=DAY, own=_own(input=1.25, cached=0.625, output=10))
    assert round(made.total, 4) == Decimal("0.1849")
    # At the listed prices, with the tier of prompts beyond 200,000 tokens: 2.50 input, 0.25 cached, 15 output.
    listed = prices.cost(usage, "gemini-2.5-pro", "google", DAY)
    assert listed.total == Decimal("0.10316125")


def test_cached_tokens_of_xai_are_counted_once() -> None:
    """BerriAI/litellm#14874, first example: (2739 - 2634) x 1e-10 + 2634 x 0.003 + 5 x 1e-11."""
    reported = {
        "prompt_tokens": 2739,
        "completion_tokens": 5,
        "prompt_tokens_details": {"text_tokens": 2739, "cached_tokens": 2634},
    }
    own = _own(input="0.0001", cached=3000, output="0.00001")
    assert prices.cost(prices.usage_of(reported), "m", at=DAY, own=own).total == Decimal("7.90200001055")


def test_cached_tokens_of_xai_cost_the_cached_price_when_it_is_low() -> None:
    """BerriAI/litellm#14874, second example: 2585 of 2693 are cached at 1e-11, the rest costs 0.0002 each."""
    reported = {"prompt_tokens": 2693, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 2585}}
    made = prices.cost(prices.usage_of(reported), "m", at=DAY, own=_own(input=200, cached="0.00001", output=0))
    assert made.total == Decimal(108) * Decimal("0.0002") + Decimal(2585) * Decimal("1e-11")


def test_cache_writes_of_anthropic_are_counted_once() -> None:
    """BerriAI/litellm#9812: 0.091311 was charged, the console said 0.05439."""
    reported = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 12304,
        "cache_read_input_tokens": 0,
        "output_tokens": 550,
    }
    made = prices.cost(prices.usage_of(reported), "claude-3-7-sonnet-20250219", at=datetime.date(2025, 4, 8))
    assert made.total == Decimal("0.054399")


def test_cache_reads_and_writes_within_the_prompt_are_counted_once() -> None:
    """BerriAI/litellm#11364: 0.04708 was charged for what costs 10 x 5 + 66360 x 0.5 + 32435 x 6.25 + 5120 x 25."""
    reported = {
        "total_tokens": 103925,
        "prompt_tokens": 98805,
        "completion_tokens": 5120,
        "prompt_tokens_details": {"text_tokens": None, "cached_tokens": 66360, "cache_creation_tokens": 32435},
        "cache_read_input_tokens": 66360,
        "completion_tokens_details": {"reasoning_tokens": 1710},
        "cache_creation_input_tokens": 32435,
    }
    day = datetime.date(2026, 1, 19)
    usage = prices.usage_of(reported)
    assert (usage.input, usage.cached, usage.cache_write, usage.reasoning) == (98805, 66360, 32435, 1710)
    assert prices.cost(usage, "claude-opus-4-5-20251101", "anthropic", day).total == Decimal("0.36394875")


def test_streamed_cache_reads_are_found_beside_empty_details() -> None:
    """BerriAI/litellm#11789: 2,455 of 2,459 tokens were read from the cache and charged as new."""
    reported = {
        "prompt_tokens": 2459,
        "completion_tokens": 23,
        "prompt_tokens_details": {"cached_tokens": 0},
        "cache_read_input_tokens": 2455,
    }
    assert prices.usage_of(reported).cached == 2455


def test_reasoning_is_a_part_of_the_output_once() -> None:
    """pydantic/logfire#1316: 133 + 64 reasoning tokens; 538 + 2,208 cached: 0.000584."""
    reported = {
        "prompt_tokens": 2746,
        "completion_tokens": 197,
        "prompt_tokens_details": {"cached_tokens": 2208},
        "completion_tokens_details": {"reasoning_tokens": 64},
    }
    made = prices.cost(prices.usage_of(reported), "gpt-5-mini", "openai", datetime.date(2025, 8, 13))
    assert round(made.total, 6) == Decimal("0.000584")


def test_reasoning_beside_the_output_is_not_missed() -> None:
    """BerriAI/litellm#10567: reasoning was in no total. Numbers of simonw/llm-gemini#75: 9 of text, 107 of thoughts."""
    gemini = {"promptTokenCount": 8, "candidatesTokenCount": 9, "thoughtsTokenCount": 107}
    assert prices.usage_of(gemini) == prices.Usage(input=8, output=116, reasoning=107)
    beside = {
        "prompt_tokens": 8,
        "completion_tokens": 9,
        "total_tokens": 124,
        "completion_tokens_details": {"reasoning_tokens": 107},
    }
    assert prices.usage_of(beside) == prices.Usage(input=8, output=116, reasoning=107)


@settings(max_examples=50, deadline=None)
@given(
    parts=st.tuples(*[st.integers(0, 10**6)] * 5),
    rates=st.tuples(*[st.integers(0, 1000)] * 5),
)
def test_the_bill_is_the_sum_of_disjoint_parts(parts: tuple[int, ...], rates: tuple[int, ...]) -> None:
    plain, cached, written, text, thoughts = parts
    usage = prices.Usage(
        input=plain + cached + written, cached=cached, cache_write=written, output=text + thoughts, reasoning=thoughts
    )
    names = ("input", "cached", "cache_write", "output", "reasoning")
    made = prices.cost(usage, "m", at=DAY, own=_own(**dict(zip(names, rates, strict=True))))
    assert made.total == sum(Decimal(n) * rate for n, rate in zip(parts, rates, strict=True)) / Decimal(10**6)
    assert made.total == made.input + made.output


def test_a_batch_costs_half_and_says_which_price_that_is() -> None:
    usage = prices.Usage(input=1000, output=100)
    full = prices.cost(usage, "claude-sonnet-4-5", at=DAY)
    half = prices.cost(usage, "claude-sonnet-4-5", at=DAY, batch=True)
    dated = prices.cost(usage, "claude-sonnet-4-5", at=datetime.date(2026, 11, 1), batch=True)
    assert half.total * 2 == full.total
    assert half.notes
    assert (dated.total, dated.notes) == (half.total, ())
    assert "genai-prices" in half.provenance


def test_own_prices_hold_from_their_day(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(
        "- {model: m, date: 2025-01-01, input: 2, output: 8}\n"
        "- {model: m, date: '2025-06-01', input: 1, output: 4, source: contract}\n"
    )
    own = prices.read_own(str(path))
    usage = prices.Usage(input=10**6)
    assert prices.cost(usage, "m", at=datetime.date(2025, 5, 31), own=own).total == 2
    later = prices.cost(usage, "m", at=datetime.date(2025, 6, 1), own=own)
    assert (later.total, later.provenance) == (Decimal(1), "own price from 2025-06-01, contract")
    with pytest.raises(errors.PricingError, match="begin on 2025-01-01"):
        prices.cost(usage, "m", at=datetime.date(2024, 12, 31), own=own)


def test_wrong_own_prices_are_said_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text('[{"model": "", "date": "x", "input": -1, "output": 1, "colour": 2}, 3]')
    with pytest.raises(errors.PricingError) as caught:
        prices.read_own(str(path))
    for text in ("[0].model", "[0].date", "[0].input", "[0].colour", "[1]"):
        assert text in caught.value.message


@pytest.mark.parametrize(
    "values", [{"input": -1}, {"input": 1, "cached": 2}, {"output": 1, "reasoning": 2}, {"input": 10**18}]
)
def test_a_usage_that_cannot_be_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(errors.PricingError):
        prices.Usage(**values)


def test_a_model_without_a_price_names_the_nearest() -> None:
    with pytest.raises(errors.PricingError, match="gpt-4o-mini"):
        prices.cost(prices.Usage(input=1), "gpt-4oo-mini", "openai")
    with pytest.raises(errors.PricingError, match="none of promptTokenCount"):
        prices.usage_of({"tokens": 3})
