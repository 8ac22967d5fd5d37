"""Which kind a word on the command line means: `pr`, `pipelineruns`, `pipeline_run`, `PipelineRun` are one.

It knows the registry's table and loads no model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.api.v2.registry import Kind

__all__ = ["find", "parse", "parse_many", "parse_targets", "snake_case"]


def snake_case(kind: Kind) -> str:
    """`pipeline_run`: the name of the kind's module, its group of commands and its page in the documentation."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.kind).lower()


def find(word: str) -> Kind | None:
    """The kind that `word` means, or None."""
    return next((kind for kind in registry.KINDS.values() if word.lower().replace("-", "_") in _words(kind)), None)


def parse(word: str) -> Kind:
    """The kind that `word` means. Raises SettingsError that lists the kinds."""
    kind = find(word)
    if kind is None:
        known = ", ".join(sorted(snake_case(kind) for kind in registry.KINDS.values()))
        raise errors.SettingsError(f"there is no kind {word!r}; the kinds are: {known}")
    return kind


def parse_many(words: str) -> list[Kind]:
    """The kinds of a comma-separated list; `all` means those that people work with."""
    found: list[Kind] = []
    for word in words.split(","):
        found += (
            [k for k in registry.KINDS.values() if "michelangelo" in k.categories] if word == "all" else [parse(word)]
        )
    return list(dict.fromkeys(found))


def parse_targets(arguments: Sequence[str]) -> list[tuple[Kind, str]]:
    """The objects that `KIND NAME…` or `KIND/NAME…` name; an empty name means all of the kind."""
    if not arguments:
        raise errors.SettingsError("name a kind, such as `pipeline_run`, or an object, such as `pipeline_run/NAME`")
    if any("/" in argument for argument in arguments):
        return [_slashed(argument) for argument in arguments]
    kinds, names = parse_many(arguments[0]), arguments[1:] or [""]
    return [(kind, name) for kind in kinds for name in names]


def _slashed(argument: str) -> tuple[Kind, str]:
    word, slash, name = argument.partition("/")
    if not slash or not name or "/" in name:
        raise errors.SettingsError(f"{argument!r}: objects are all written KIND/NAME, or as one KIND and then names")
    return parse(word), name


def _words(kind: Kind) -> set[str]:
    return {kind.singular, kind.plural, kind.resource, snake_case(kind), f"{snake_case(kind)}s", *kind.short_names}
