"""`mactl llm models`: names, sizes and sources, in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Mactl = Callable[..., Any]


def test_models_are_listed_with_their_sizes(mactl: Mactl) -> None:
    result = mactl("llm", "models", "llama-3.1-8b")
    assert result.code == 0
    assert result.out.splitlines()[0].split() == ["NAME", "PARAMETERS", "ACTIVE", "LAYERS", "ARCHITECTURE"]
    assert "8.03B" in result.out


def test_models_are_json_and_names(mactl: Mactl) -> None:
    (mixtral,) = json.loads(mactl("llm", "models", "mixtral-8x7b", "-o", "json").out)
    assert mixtral["parameters"] == 46_702_792_704
    assert mixtral["activeParameters"] < 13_000_000_000
    assert mixtral["source"].startswith("https://")
    assert mactl("llm", "models", "mixtral-8x7b", "-o", "name").out == "mixtral-8x7b\n"


def test_a_word_that_no_name_has_is_said(mactl: Mactl) -> None:
    result = mactl("llm", "models", "nosuch")
    assert result.code == 0
    assert "nosuch" in result.err
