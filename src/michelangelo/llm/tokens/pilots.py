"""Output lengths of a pilot: a file of what a model answered, or of the offline scorer's results.

Where a row says how many tokens it had, that counts; else its text is counted by the model's tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.tokens import prices, tokenizers
from michelangelo.llm.tokens.estimate import Lengths

__all__ = ["read"]

_MOST_ROWS: Final = 100_000
_COUNTS: Final = ("output_tokens", "completion_tokens")
_TEXTS: Final = ("text", "output", "response", "completion", "answer", "content")


def read(path: str, model: str, *, tokenizer: str = "") -> Lengths:
    """JSONL (the first rows of a very long one), or text with an output a line. Raises PricingError."""
    if not Path(path).is_file():
        raise errors.PricingError(f"pilot {path}: no such file; give JSONL with output_tokens, usage or text")
    is_json = path.endswith((".jsonl", ".ndjson"))
    samples: list[int] = []
    bad = 0
    try:
        with Path(path).open(encoding="utf-8") as file:
            for line in file:
                if len(samples) == _MOST_ROWS:
                    break
                if not line.strip():
                    continue
                try:
                    row = json.loads(line) if is_json else {"text": line.rstrip("\n")}
                    samples.append(_length(row, model, tokenizer))
                except ValueError:
                    bad += 1
    except (OSError, UnicodeDecodeError) as e:
        raise errors.PricingError(f"pilot {path}: cannot be read: {e}") from e
    if not samples:
        raise errors.PricingError(
            f"pilot {path}: no row of it tells an output length ({bad} cannot be used); "
            "give rows with output_tokens, usage or text"
        )
    return Lengths(samples=tuple(samples), source=f"pilot {path}: {len(samples)} outputs, {bad} unusable")


def _length(row: Any, model: str, tokenizer: str) -> int:
    if not isinstance(row, Mapping):
        raise ValueError("no object")
    reported = row.get("usage")
    if isinstance(reported, Mapping):
        try:
            return prices.usage_of(reported).output
        except errors.PricingError as e:
            raise ValueError(e.message) from e
    for name in _COUNTS:
        value = row.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**8:
            return value
    for name in _TEXTS:
        if isinstance(row.get(name), str):
            return tokenizers.for_model(model, tokenizer=tokenizer).count(row[name])[1]
    raise ValueError("no length")
