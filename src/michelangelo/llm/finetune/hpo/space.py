"""Which fields of a configuration are searched, and over which values. It samples nothing: that is Ray Tune's.

Fields are dotted paths as in the configuration (`optimizer.learning_rate`); whatever can be written there can be
searched.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from michelangelo import errors
from michelangelo.llm.finetune import config as configuration
from michelangelo.llm.finetune.config import FinetuneConfig

__all__ = [
    "DEFAULT",
    "Choice",
    "Dimension",
    "LogUniform",
    "Space",
    "check",
    "configured",
    "parse_choice",
    "parse_range",
]


@dataclass(frozen=True, slots=True)
class LogUniform:
    """Between `low` and `high`, every factor as likely as any other."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values, each as likely as any other."""

    values: tuple[Any, ...]


Dimension: TypeAlias = LogUniform | Choice
Space: TypeAlias = Mapping[str, Dimension]
"""By dotted path."""

DEFAULT: Final[Space] = {"optimizer.learning_rate": LogUniform(1e-5, 1e-3), "adapter.rank": Choice((4, 16, 64))}
"""What decides most for adapters. `adapter.alpha` stays as it is, so that the best rate hardly depends on the rank."""


def parse_range(text: str) -> LogUniform:
    """`1e-5:1e-3`. Raises ValueError with a sentence."""
    low, colon, high = text.partition(":")
    try:
        found = LogUniform(float(low), float(high))
    except ValueError:
        found = LogUniform(math.nan, math.nan)
    if not (colon and 0.0 < found.low < found.high < math.inf):
        raise ValueError(f"{text!r} is no range LOW:HIGH of two growing positive numbers, such as 1e-5:1e-3")
    return found


def parse_choice(values: Sequence[Any]) -> Choice:
    """Raises ValueError where there is none, or one comes twice."""
    if not values or len(set(map(repr, values))) < len(values):
        raise ValueError(f"{', '.join(map(str, values)) or 'nothing'}: wants different values")
    return Choice(tuple(values))


def check(config: FinetuneConfig, space: Space) -> None:
    """Every bound and every value makes a valid configuration by itself. Raises SettingsError with all that do not."""
    if not space:
        raise errors.SettingsError("nothing to search: name at least one field and its values")
    wrong: list[str] = []
    for path, dimension in space.items():
        values = dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        for value in values:
            try:
                configured(config, {path: value})
            except errors.SettingsError as e:
                wrong += [f"  {path}={value}: {line.strip()}" for line in e.message.splitlines()[1:] or [e.message]]
    if wrong:
        raise errors.SettingsError("the search cannot start: wrong values:\n" + "\n".join(wrong))


def configured(config: FinetuneConfig, values: Mapping[str, Any]) -> FinetuneConfig:
    """`config` with some fields changed. Raises SettingsError."""
    document = copy.deepcopy(config.model_dump(mode="json"))
    for path, value in values.items():
        *parents, last = path.split(".")
        section: Any = document
        for name in parents:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise errors.SettingsError(f"{path}: there is no such field in a configuration")
        section[last] = value
    return configuration.parse(document, source="trial")
