"""A suite: cases to ask, each with checks, slices and repeats. YAML or JSONL in; every wrong field said at once.

A case's digest covers what is asked, another one how it is judged: only cases with both the same can be compared, and
answers can be judged again as long as the first is. It asks nothing and judges nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from michelangelo import errors
from michelangelo.llm.tracebench.checks import registry
from michelangelo.llm.tracebench.checks.outcome import Check, FieldProblem

__all__ = ["MAX_FILE_BYTES", "Case", "Suite", "from_document", "load"]

MAX_FILE_BYTES: Final = 512 * 1024 * 1024
_CASE_FIELDS: Final = frozenset(
    {"id", "prompt", "messages", "tools", "sampling", "checks", "slices", "tags", "repeats", "vars"}
)
_SUITE_FIELDS: Final = frozenset({"name", "defaults", "cases"})
_DEFAULT_FIELDS: Final = frozenset({"sampling", "checks", "slices", "tags", "repeats", "tools"})
_SAMPLING_FIELDS: Final = {
    "max_tokens": int,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "seed": int,
    "stop": list,
    "logprobs": int,
    "json_schema": dict,
}
_MAX_REPEATS: Final = 1000
_MAX_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to ask. Exactly one of `prompt` and `messages`. document: as the suite has it, defaults filled in."""

    id: str
    prompt: str | None
    messages: tuple[Mapping[str, Any], ...] | None
    tools: tuple[Mapping[str, Any], ...]
    sampling: Mapping[str, Any]
    slices: tuple[str, ...]
    repeats: int
    variables: Mapping[str, Any]
    checks: tuple[Check, ...]
    document: Mapping[str, Any] = field(repr=False)
    input_digest: str = ""
    """Of what is asked."""
    checks_digest: str = ""
    """Of how it is judged."""

    @property
    def question(self) -> str:
        """For people: the prompt, or the last message of the user."""
        if self.prompt is not None:
            return self.prompt
        users = [m for m in self.messages or () if m.get("role") == "user"] or list(self.messages or ())
        content = users[-1].get("content", "") if users else ""
        return content if isinstance(content, str) else orjson.dumps(content).decode()


@dataclass(frozen=True, slots=True)
class Suite:
    """Cases in the order of their file, with ids of their own."""

    name: str
    cases: tuple[Case, ...]
    digest: str

    def document(self) -> dict[str, Any]:
        """What `from_document` reads."""
        return {"name": self.name, "cases": [dict(case.document) for case in self.cases]}


def load(path: Path) -> Suite:
    """A suite from *.yaml, *.yml, *.json (a mapping with `cases`) or *.jsonl (a case a line).

    Raises SuiteError that names every wrong field.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise errors.SuiteError(f"{path} has {size:,} bytes, and {MAX_FILE_BYTES:,} are the limit: split the suite")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise errors.SuiteError(f"{path} cannot be read as a suite: {e}") from e
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return from_document({"name": path.stem, "cases": _lines(text, path)}, str(path))
    try:
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as e:
        raise errors.SuiteError(f"{path} is not YAML: {e}") from e
    if isinstance(document, list):
        document = {"cases": document}
    if not isinstance(document, Mapping):
        raise errors.SuiteError(f"{path} is not a suite: it must be a mapping with `cases`, or a list of cases")
    return from_document({"name": path.stem, **document}, str(path))


def from_document(document: Mapping[str, Any], source: str = "the suite") -> Suite:
    """A suite from its document. source: how messages call it. Raises SuiteError that names every wrong field."""
    problems = [f"{name}: there is no such field" for name in sorted(map(str, set(document) - _SUITE_FIELDS))]
    defaults, items = document.get("defaults") or {}, document.get("cases")
    if not isinstance(defaults, Mapping):
        problems.append("defaults: must be a mapping")
        defaults = {}
    problems += [
        f"defaults.{name}: there is no such field" for name in sorted(map(str, set(defaults) - _DEFAULT_FIELDS))
    ]
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        problems.append("cases: there are none; give at least one, with id, prompt and checks")
        items = []
    cases: list[Case] = []
    seen: dict[str, int] = {}
    for number, item in enumerate(items):
        found = _case(item, defaults, f"cases[{number}]", problems)
        if found is None:
            continue
        if found.id in seen:
            problems.append(
                f"cases[{number}].id: {found.id!r} is the id of cases[{seen[found.id]}] too; ids are unique"
            )
        seen.setdefault(found.id, number)
        cases.append(found)
    if problems:
        rest = [f"… and {len(problems) - _MAX_SHOWN} more"] if len(problems) > _MAX_SHOWN else []
        raise errors.SuiteError(f"{source} cannot be used:\n  " + "\n  ".join([*problems[:_MAX_SHOWN], *rest]))
    made = [[case.input_digest, case.checks_digest, list(case.slices), case.repeats] for case in cases]
    return Suite(str(document.get("name") or "suite"), tuple(cases), _digest(made))


def _lines(text: str, path: Path) -> list[Any]:
    items, problems = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                items.append(orjson.loads(line))
            except orjson.JSONDecodeError as e:
                problems.append(f"line {number}: {e}")
    if problems:
        raise errors.SuiteError(f"{path} is not JSONL:\n  " + "\n  ".join(problems[:_MAX_SHOWN]))
    return items


def _case(item: Any, defaults: Mapping[str, Any], path: str, problems: list[str]) -> Case | None:
    if not isinstance(item, Mapping):
        problems.append(f"{path}: must be a mapping with id, prompt and checks")
        return None
    before = len(problems)
    problems += [f"{path}.{name}: there is no such field" for name in sorted(map(str, set(item) - _CASE_FIELDS))]
    identity = item.get("id")
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = str(identity)
    if not isinstance(identity, str) or not identity.strip():
        problems.append(f"{path}.id: must be text that is not empty")
    prompt, messages = item.get("prompt"), item.get("messages")
    if (prompt is None) == (messages is None):
        problems.append(f"{path}: give exactly one of prompt and messages")
    if prompt is not None and not isinstance(prompt, str):
        problems.append(f"{path}.prompt: must be text")
    _check_objects(messages, f"{path}.messages", "a list of mappings with role and content", problems)
    tools = item.get("tools", defaults.get("tools"))
    _check_objects(tools, f"{path}.tools", "a list of JSON schemas of functions", problems)
    sampling = _sampling(item, defaults, path, problems)
    repeats = item.get("repeats", defaults.get("repeats", 1))
    if not isinstance(repeats, int) or isinstance(repeats, bool) or not 1 <= repeats <= _MAX_REPEATS:
        problems.append(f"{path}.repeats: must be a whole number from 1 to {_MAX_REPEATS}")
    variables = item.get("vars") or {}
    if not isinstance(variables, Mapping):
        problems.append(f"{path}.vars: must be a mapping")
    slices = _slices(item, defaults, path, problems)
    checks, documents = _checks(item, defaults, path, problems)
    if len(problems) > before:
        return None
    asked = {"prompt": prompt, "messages": messages, "tools": tools, "sampling": sampling, "vars": variables}
    asked = {name: value for name, value in asked.items() if value}
    if prompt == "":
        asked["prompt"] = ""
    try:
        return Case(
            id=str(identity),
            prompt=prompt,
            messages=None if messages is None else tuple(messages),
            tools=tuple(tools or ()),
            sampling=sampling,
            slices=slices,
            repeats=int(repeats),
            variables=variables,
            checks=checks,
            document={"id": identity, **asked, "slices": list(slices), "repeats": repeats, "checks": documents},
            input_digest=_digest([identity, asked]),
            checks_digest=_digest(documents),
        )
    except TypeError as e:
        problems.append(f"{path}: holds what JSON cannot ({e})")
        return None


def _checks(
    item: Mapping[str, Any], defaults: Mapping[str, Any], path: str, problems: list[str]
) -> tuple[tuple[Check, ...], list[Any]]:
    made, documents = [], []
    for owner, given in (("defaults", defaults.get("checks") or []), (path, item.get("checks") or [])):
        if not isinstance(given, Sequence) or isinstance(given, str):
            problems.append(f"{owner}.checks: must be a list")
            continue
        for number, document in enumerate(given):
            try:
                full = registry.document_of(document)
                made.append(registry.parse(full))
                documents.append(full)
            except FieldProblem as e:
                where = f"{owner}.checks[{number}]" + (f".{e.field}" if e.field else "")
                if f"{where}: {e.problem}" not in problems:
                    problems.append(f"{where}: {e.problem}")
    return tuple(made), documents


def _check_objects(value: Any, path: str, what: str, problems: list[str]) -> None:
    if value is None:
        return
    if not isinstance(value, list) or not value or not all(isinstance(one, Mapping) for one in value):
        problems.append(f"{path}: must be {what}")


def _sampling(item: Mapping[str, Any], defaults: Mapping[str, Any], path: str, problems: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for owner, given in (("defaults", defaults.get("sampling") or {}), (path, item.get("sampling") or {})):
        if not isinstance(given, Mapping):
            problems.append(f"{owner}.sampling: must be a mapping")
            continue
        for name, value in given.items():
            kind = _SAMPLING_FIELDS.get(name)
            if kind is None:
                problems.append(
                    f"{owner}.sampling.{name}: there is no such field; known: {', '.join(_SAMPLING_FIELDS)}"
                )
            elif isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
                problems.append(f"{owner}.sampling.{name}: must be of type {kind.__name__}")
            else:
                made[str(name)] = value
    return made


def _slices(item: Mapping[str, Any], defaults: Mapping[str, Any], path: str, problems: list[str]) -> tuple[str, ...]:
    """Names, or `key=value` for a mapping; `tags` are the same thing."""
    made: dict[str, None] = {}
    for owner, source in (("defaults", defaults), (path, item)):
        for name in ("slices", "tags"):
            given = source.get(name) or ()
            if isinstance(given, Mapping):
                given = [f"{key}={value}" for key, value in given.items()]
            if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(s, str) for s in given):
                problems.append(f"{owner}.{name}: must be a list of names, or a mapping")
                continue
            made.update(dict.fromkeys(s for s in given if s))
    return tuple(made)


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
