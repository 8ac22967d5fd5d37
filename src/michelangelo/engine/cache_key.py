"""The key of a cached output, and the parts that it is made of: each function, class and constant, each argument.

The key decides; the parts only explain. They are bounded: values are cut to what people can read, data is named by
type, size and digest, and what looks like a secret by its name is not shown. It looks nothing up (engine/cache.py).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from michelangelo.uniflow import code_digest, codecs
from michelangelo.uniflow.code_digest import Code

__all__ = ["CacheKey", "Recipe", "short"]

_MAX_ARGUMENTS: Final = 50
_MAX_SHOWN: Final = 200
_NO_CODE: Final = Code("", {})


@dataclass(frozen=True)
class CacheKey:
    """`ttl_seconds` (0: for ever) is no part of the key: it is what the reader accepts."""

    code: str
    arguments: str
    version: str = ""
    ttl_seconds: float = 0.0
    requirements: Sequence[str] = ()
    task: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """For people: `codeParts`, `codePartsOmitted`, `argumentParts`."""

    @cached_property
    def digest(self) -> str:
        made_of: list[Any] = [self.code, self.arguments, self.version]
        if self.requirements:
            made_of.append(list(self.requirements))
        return hashlib.sha256(json.dumps(made_of, separators=(",", ":")).encode()).hexdigest()[:40]

    @property
    def object_name(self) -> str:
        return f"co-{self.digest}"

    def document(self) -> dict[str, Any]:
        """As CachedOutputs and TaskRuns have it."""
        found: dict[str, Any] = {
            "task": self.task,
            "code": self.code,
            "arguments": self.arguments,
            "version": self.version,
            "python": code_digest.PYTHON,
        }
        if self.requirements:
            found["requirements"] = list(self.requirements)
        return {**found, **self.parts}


@dataclass(frozen=True)
class Recipe:
    """What a call of a task knows of its key before its arguments are known: all but these."""

    task: str
    code: Code
    parameters: Sequence[inspect.Parameter] = ()
    version: str = ""
    ttl_seconds: float = 0.0
    requirements: Sequence[str] = ()

    def key(self, arguments: Mapping[str, Any]) -> CacheKey:
        """The key for encoded arguments, {"args": […], "kwargs": {…}}."""
        parts: dict[str, Any] = {"codeParts": self._code_parts, "argumentParts": self._argument_parts(arguments)}
        if self.code.omitted:
            parts["codePartsOmitted"] = self.code.omitted
        return CacheKey(
            self.code.digest,
            codecs.digest(arguments),
            self.version,
            self.ttl_seconds,
            tuple(self.requirements),
            self.task,
            parts,
        )

    @cached_property
    def _code_parts(self) -> dict[str, Any]:
        found = {}
        for name, part in self.code.parts.items():
            place = {"file": part.file, "line": part.line, "value": part.value}
            found[name] = {"digest": part.digest, **{key: value for key, value in place.items() if value}}
        return found

    def _argument_parts(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, tree in self._named(arguments):
            if len(found) == _MAX_ARGUMENTS:
                break
            hidden = code_digest.is_confidential(name)
            found[name] = {
                "digest": codecs.digest(tree).removeprefix("sha256:")[:12],
                "value": "(not shown)" if hidden else short(tree),
            }
        return found

    def _named(self, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        positional = [one for one in self.parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        rest = next((one.name for one in self.parameters if one.kind is one.VAR_POSITIONAL), "args")
        for index, tree in enumerate(arguments.get("args") or ()):
            over = index - len(positional)
            yield (f"{rest}[{over}]" if over >= 0 else positional[index].name), tree
        yield from sorted((arguments.get("kwargs") or {}).items())


def short(tree: Any) -> str:
    """An encoded value for people: inline ones as they are written, data by type, shape, size and digest; cut."""
    text = _SHOWN.repr(tree)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _MAX_SHOWN

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """A leaf by what people know it as; an item whose name says so is not shown."""
        if "$codec" in x:
            return self._leaf(x, level)
        hidden = {key: "(not shown)" for key in x if isinstance(key, str) and code_digest.is_confidential(key)}
        return super().repr_dict({**x, **hidden} if hidden else x, level)

    def _leaf(self, leaf: dict[str, Any], level: int) -> str:
        words = [str(leaf.get("type") or leaf["$codec"])]
        metadata = leaf.get("metadata") or {}
        words += [f"{name}={self.repr1(value, level - 1)}" for name, value in metadata.items()]
        if "blob" in leaf:
            words += [f"{leaf.get('size', 0)} bytes", str(leaf["blob"])[:19]]
        else:
            known = ("$codec", "type", "metadata")
            words += [self.repr1(value, level - 1) for name, value in leaf.items() if name not in known]
        return f"<{' '.join(words)}>"


_SHOWN: Final = _Shown()
