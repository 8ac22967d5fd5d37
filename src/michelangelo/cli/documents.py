"""YAML and JSON files as objects, read within bounds, every error with its file and line.

A file is measured before anything is built from it: size, nesting, and what its aliases would expand to. It validates
no kind: that is the server's.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import yaml

from michelangelo import errors
from michelangelo.client.client import Object

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_NODES", "Document", "load", "parse", "read"]

MAX_BYTES: Final = 3 * 1024 * 1024
MAX_DEPTH: Final = 100
MAX_NODES: Final = 200_000
"""Values of one file, aliases expanded."""
_SUFFIXES: Final = (".yaml", ".yml", ".json")
_CLOSING: Final = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


@dataclass(frozen=True)
class Document:
    """One object, and where it was read."""

    object: Object
    source: str
    line: int
    node: yaml.Node = field(repr=False)

    def place(self, path: str = "") -> str:
        """`file:line` of the field at `path` (`spec.tasks[0].name`), or of its nearest parent that is there."""
        node, line = self.node, self.line
        for part in path.replace("[", ".").replace("]", "").split("."):
            child = _child(node, part)
            if child is None:
                break
            node, line = child
        return f"{self.source}:{line}"


def load(names: Sequence[str], *, recursive: bool = False) -> list[Document]:
    """The objects of files, folders and standard input (`-`). SettingsError with all that is wrong."""
    documents: list[Document] = []
    wrong: list[str] = []
    for name in names:
        for path in _files(name, recursive, wrong):
            try:
                documents += read(path)
            except errors.SettingsError as e:
                wrong.append(e.message)
    if wrong:
        raise errors.SettingsError("\n       ".join(wrong))
    if not documents:
        raise errors.SettingsError(f"{', '.join(names)}: there is no object in it")
    return documents


def read(path: str) -> list[Document]:
    """The objects of one file; `-` is standard input."""
    try:
        if path == "-":
            return parse(_bounded(sys.stdin.buffer, "standard input"), "standard input")
        with open(path, "rb") as file:
            return parse(_bounded(file, path), path)
    except OSError as e:
        raise errors.SettingsError(f"{path}: cannot be read: {e.strerror}") from e


def parse(data: bytes, source: str) -> list[Document]:
    """The objects of a multi-document text. Kubernetes `List`s are taken apart. Raises SettingsError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise errors.SettingsError(f"{source}: is no UTF-8 text (byte {e.start})") from e
    try:
        _measure(text, source)
        loader = _Loader(text)
        found: list[Document] = []
        try:
            while loader.check_node():
                node = loader.get_node()
                if node is not None:
                    found += _objects(loader, node, source)
        finally:
            loader.dispose()
        return found
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        # What is not closed is noticed behind the last line.
        line = min(mark.line + 1, max(text.count("\n"), 1)) if mark else 1
        raise errors.SettingsError(f"{source}:{line}: {e.problem or e.context}") from e
    except yaml.YAMLError as e:
        raise errors.SettingsError(f"{source}: {e}") from e


class _Loader(yaml.CSafeLoader):
    """Plain JSON values only: timestamps stay text, keys are text, and a key is given once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            key = key if isinstance(key, str) else str(key_node.value)
            if key in mapping:
                raise yaml.MarkedYAMLError(problem=f"{key!r} is given twice", problem_mark=key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise yaml.MarkedYAMLError(problem=f"{node.value} is no JSON number", problem_mark=node.start_mark)
        return value


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _files(name: str, recursive: bool, wrong: list[str]) -> Iterator[str]:
    path = Path(name)
    if name == "-" or path.is_file():
        yield name
    elif path.is_dir():
        inside = path.rglob("*") if recursive else path.iterdir()
        yield from (str(file) for file in sorted(inside) if file.suffix in _SUFFIXES and file.is_file())
    else:
        wrong.append(f"{name}: there is no such file or folder")


def _bounded(file: IO[bytes], source: str) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise errors.SettingsError(f"{source}: is larger than {MAX_BYTES} bytes")
    return data


def _measure(text: str, source: str) -> None:
    """Nesting and expanded size, from the stream of events alone: nothing is built, nothing recurses."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.DocumentStartEvent):
            sizes.clear()
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
        elif isinstance(event, _CLOSING):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise errors.SettingsError(f"{source}:{line}: the alias *{event.anchor} refers to no value before it")
            total += sizes[event.anchor]
        if len(open_nodes) > MAX_DEPTH:
            raise errors.SettingsError(f"{source}:{line}: is nested deeper than {MAX_DEPTH} levels")
        if total > MAX_NODES:
            raise errors.SettingsError(f"{source}:{line}: holds more than {MAX_NODES} values, aliases expanded")


def _objects(loader: _Loader, node: yaml.Node, source: str) -> Iterable[Document]:
    line = node.start_mark.line + 1
    value = loader.construct_document(node)
    if value is None:
        return []
    if not isinstance(value, dict):
        raise errors.SettingsError(f"{source}:{line}: an object is a mapping with apiVersion, kind, metadata, spec")
    if value.get("kind") != "List":
        return [_checked(value, source, line, node)]
    items = _child(node, "items")
    if items is None or not isinstance(items[0], yaml.SequenceNode) or not isinstance(value["items"], list):
        raise errors.SettingsError(f"{source}:{line}: a List has items")
    return [
        _checked(item, source, child.start_mark.line + 1, child)
        for item, child in zip(value["items"], items[0].value, strict=True)
    ]


def _checked(value: Any, source: str, line: int, node: yaml.Node) -> Document:
    for key in ("apiVersion", "kind"):
        if not isinstance(value, dict) or not isinstance(value.get(key), str) or not value[key]:
            raise errors.SettingsError(f"{source}:{line}: {key} is missing: is this an object?")
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or not (metadata.get("name") or metadata.get("generateName")):
        raise errors.SettingsError(f"{source}:{line}: metadata.name is missing")
    return Document(value, source, line, node)


def _child(node: yaml.Node, key: str) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_node.value == key:
                return value_node, key_node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and key.isdecimal() and int(key) < len(node.value):
        child = node.value[int(key)]
        return child, child.start_mark.line + 1
    return None
