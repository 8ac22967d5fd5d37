"""Label and field selectors: which objects of a list or a watch are meant.

Label selectors are those of Kubernetes: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, `a>1`,
`a<1`. Field selectors are `path=value`, `==`, `!=` over any scalar field; whether a kind has the field is for the
schema to say. The terms are how selectors meet the store's index; the store itself sees opaque text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from michelangelo import errors
from michelangelo.meta import fieldpath, names

__all__ = [
    "FieldRequirement",
    "FieldSelector",
    "LabelRequirement",
    "LabelSelector",
    "Operator",
    "index_terms",
    "parse_fields",
    "parse_labels",
]

Operator = Literal["=", "!=", "in", "notin", "exists", "!", ">", "<"]

_LENGTH: Final = 16 * 1024
_TOKEN: Final = re.compile(r"\s*(==|!=|=|>|<|!|\(|\)|,|[^\s=!<>(),]+)\s*")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """One requirement on one label; `values` is empty for `exists` and `!`, and has one value for `=`, `!=`, `>`,
    `<`."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        present = self.key in labels
        match self.operator:
            case "exists":
                return present
            case "!":
                return not present
            case "=" | "in":
                return present and labels[self.key] in self.values
            case "!=" | "notin":
                return not present or labels[self.key] not in self.values
            case _:
                if not present or not _INTEGER.fullmatch(labels[self.key]):
                    return False
                value, bound = int(labels[self.key]), int(self.values[0])
                return value > bound if self.operator == ">" else value < bound

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(self.values)})"
            case _:
                return f"{self.key}{self.operator}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All of the requirements; none of them selects everything."""

    requirements: tuple[LabelRequirement, ...] = ()

    def matches(self, obj: Mapping[str, Any]) -> bool:
        if not self.requirements:
            return True
        labels = fieldpath.find(obj, ("metadata", "labels")) or {}
        return all(requirement.matches(labels) for requirement in self.requirements)

    def equality_terms(self) -> frozenset[str]:
        """Index terms that every selected object carries. Other objects may carry them too: `matches` decides."""
        return frozenset(
            _term(requirement.key, requirement.values[0])
            for requirement in self.requirements
            if requirement.operator in ("=", "in") and len(requirement.values) == 1
        )

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __bool__(self) -> bool:
        return bool(self.requirements)


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One requirement on one field; a field that is absent counts as empty."""

    path: str
    operator: Literal["=", "!="]
    value: str

    def matches(self, obj: Mapping[str, Any]) -> bool:
        found = _scalar(fieldpath.find(obj, fieldpath.parse(self.path)))
        return (found == self.value) is (self.operator == "=")

    def __str__(self) -> str:
        value = self.value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
        return f"{self.path}{self.operator}{value}"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All of the requirements; none of them selects everything."""

    requirements: tuple[FieldRequirement, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(requirement.path for requirement in self.requirements)

    def matches(self, obj: Mapping[str, Any]) -> bool:
        return all(requirement.matches(obj) for requirement in self.requirements)

    def required(self, path: str) -> str | None:
        """The value that the field must have to be selected, or None: `metadata.name` makes a list a single look-up."""
        return next((one.value for one in self.requirements if one.path == path and one.operator == "="), None)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __bool__(self) -> bool:
        return bool(self.requirements)


def index_terms(obj: Mapping[str, Any]) -> frozenset[str]:
    """The terms under which the store indexes an object: one per label."""
    labels = fieldpath.find(obj, ("metadata", "labels")) or {}
    return frozenset(_term(key, value) for key, value in labels.items())


def parse_labels(text: str) -> LabelSelector:
    """Raises BadRequestError."""
    tokens = _tokens(text)
    requirements: list[LabelRequirement] = []
    while tokens:
        requirements.append(_label_requirement(text, tokens))
        if tokens and (tokens.pop(0) != "," or not tokens):
            raise _refused("label", text, "requirements are separated by one comma each")
    return LabelSelector(tuple(requirements))


def parse_fields(text: str) -> FieldSelector:
    """Raises BadRequestError."""
    if len(text) > _LENGTH:
        raise _refused("field", text, f"it is longer than {_LENGTH} characters")
    requirements = []
    for term in _split_fields(text):
        match = re.fullmatch(r"([^=!]+)(==|!=|=)(.*)", term, re.DOTALL)
        if match is None:
            raise _refused("field", text, f"{term!r} is not of the form field=value or field!=value")
        path, operator, value = match[1].strip(), match[2], _unescaped(text, match[3].strip())
        try:
            fieldpath.parse(path)
        except ValueError as error:
            raise _refused("field", text, str(error)) from error
        requirements.append(FieldRequirement(path, "!=" if operator == "!=" else "=", value))
    return FieldSelector(tuple(requirements))


def _label_requirement(text: str, tokens: list[str]) -> LabelRequirement:
    negated = tokens[0] == "!"
    if negated:
        tokens.pop(0)
    key = _word(text, tokens, "a label's key")
    _check(text, names.check_label_key(key), key)
    if negated:
        return LabelRequirement(key, "!")
    if not tokens or tokens[0] == ",":
        return LabelRequirement(key, "exists")
    operator = tokens.pop(0)
    if operator in ("in", "notin"):
        values = tuple(sorted(set(_label_values(text, tokens))))
        for value in values:
            _check(text, names.check_label_value(value), value)
        return LabelRequirement(key, "in" if operator == "in" else "notin", values)
    # `a=` asks for the empty value.
    value = tokens.pop(0) if tokens and tokens[0] not in _SYNTAX else ""
    _check(text, names.check_label_value(value), value)
    match operator:
        case "=" | "==":
            return LabelRequirement(key, "=", (value,))
        case "!=":
            return LabelRequirement(key, "!=", (value,))
        case ">" | "<":
            if not _INTEGER.fullmatch(value):
                raise _refused("label", text, f"{value!r} is no integer, as '{operator}' needs")
            return LabelRequirement(key, ">" if operator == ">" else "<", (value,))
        case _:
            raise _refused("label", text, f"found {operator!r}, expected one of =, ==, !=, in, notin, >, <")


_SYNTAX: Final = frozenset(("==", "!=", "=", ">", "<", "!", "(", ")", ","))


def _label_values(text: str, tokens: list[str]) -> Sequence[str]:
    if not tokens or tokens.pop(0) != "(":
        raise _refused("label", text, "in and notin are followed by values in parentheses")
    values, current = [], ""
    while tokens:
        token = tokens.pop(0)
        if token in (",", ")"):
            values.append(current)
            current = ""
            if token == ")":
                return values
        elif token in _SYNTAX or current:
            break
        else:
            current = token
    raise _refused("label", text, "values in parentheses are separated by commas and closed by ')'")


def _word(text: str, tokens: list[str], expected: str) -> str:
    if not tokens or tokens[0] in _SYNTAX:
        raise _refused("label", text, f"found {tokens[0] if tokens else 'its end'!r}, expected {expected}")
    return tokens.pop(0)


def _tokens(text: str) -> list[str]:
    if len(text) > _LENGTH:
        raise _refused("label", text, f"it is longer than {_LENGTH} characters")
    # Whatever the pattern skips is white space: every other character begins a token.
    return _TOKEN.findall(text)


def _check(text: str, messages: Sequence[str], word: str) -> None:
    if messages:
        raise _refused("label", text, f"{word!r}: {'; '.join(messages)}")


def _split_fields(text: str) -> list[str]:
    # A comma or backslash in a value is escaped by a backslash.
    terms = re.findall(r"(?:[^,\\]|\\.)+", text, re.DOTALL)
    if sum(map(len, terms)) + max(len(terms) - 1, 0) < len(text.rstrip(",")):
        raise _refused("field", text, "a backslash stands only before a comma, an equals sign or a backslash")
    return [term for term in terms if term.strip()]


def _unescaped(text: str, value: str) -> str:
    if re.search(r"(?<!\\)(?:\\\\)*=", value) or re.search(r"(?<!\\)(?:\\\\)*\\[^\\,=]", value):
        raise _refused("field", text, f"write ',', '=' and '\\' in the value {value!r} with a backslash before it")
    return re.sub(r"\\(.)", r"\1", value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else ""


def _term(key: str, value: str) -> str:
    return f"label:{key}={value}"


def _refused(what: str, text: str, why: str) -> errors.BadRequestError:
    shown = text if len(text) <= 200 else text[:200] + "…"
    return errors.BadRequestError(f"unable to parse the {what} selector {shown!r}: {why}")
