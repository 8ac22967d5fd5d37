"""Field paths as Kubernetes writes them: `spec.tasks[0].name`, `metadata.labels[a.b/c]`.

A path is a tuple of keys (text) and indices (int); this module only reads and writes that, and looks things up in
plain JSON. Whether a field exists in a kind is the schema's business. A key that is a plain word stands after a dot;
any other stands in brackets, and in quotes there where it could be taken for an index or would end the bracket.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

__all__ = ["Part", "Path", "find", "parse", "text", "under"]

Part = str | int
Path = tuple[Part, ...]

_WORD: Final = re.compile(r"[A-Za-z_$@][A-Za-z0-9_$@-]*")
_INDEX: Final = re.compile(r"0|[1-9][0-9]*")
_BARE: Final = re.compile(r"[^\[\]\"\s]+")
_TOKEN: Final = re.compile(r'\.?(?P<word>[A-Za-z0-9_$@-]+)|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]|\[(?P<bare>[^\[\]"]+)\]')
_MISSING: Final = object()


def text(path: Iterable[Part]) -> str:
    """The path as text; `parse` gives the same path back."""
    return "".join(_parts(path))


@functools.lru_cache(maxsize=1024)
def parse(path: str) -> Path:
    """Raises ValueError."""
    parts: list[Part] = []
    position = 0
    while position < len(path):
        match = _TOKEN.match(path, position)
        if match is None or (path[position] == "." and position == 0):
            raise ValueError(f"{path!r} is no field path such as spec.tasks[0].name (at character {position + 1})")
        word, quoted, bare = match.group("word", "quoted", "bare")
        if word is not None:
            if position and path[position] != ".":
                raise ValueError(f"{path!r} is no field path such as spec.tasks[0].name (at character {position + 1})")
            parts.append(word)
        elif quoted is not None:
            parts.append(str(json.loads(quoted)))
        else:
            parts.append(int(bare) if _INDEX.fullmatch(bare) else bare)
        position = match.end()
    return tuple(parts)


def find(obj: Any, path: Iterable[Part], default: Any = None) -> Any:
    """What lies at the path in a JSON document, or `default`."""
    for part in path:
        if isinstance(obj, dict):
            obj = obj.get(part, _MISSING)
        elif isinstance(obj, list) and isinstance(part, int) and 0 <= part < len(obj):
            obj = obj[part]
        else:
            return default
        if obj is _MISSING:
            return default
    return obj


def under(path: Path, ancestor: Path) -> bool:
    """Whether `path` is `ancestor` or lies below it."""
    return path[: len(ancestor)] == ancestor


def _parts(path: Iterable[Part]) -> Iterator[str]:
    first = True
    for part in path:
        if isinstance(part, int):
            yield f"[{part}]"
        elif _WORD.fullmatch(part):
            yield part if first else f".{part}"
        elif _BARE.fullmatch(part) and not _INDEX.fullmatch(part):
            yield f"[{part}]"
        else:
            yield f"[{json.dumps(part)}]"
        first = False
