"""How objects are printed: table, wide, JSON, YAML, names. One format option for all verbs.

It prints to standard output and knows no kind beyond its printed columns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import click
import yaml

from michelangelo.api.v2 import registry
from michelangelo.cli import kind_names, table
from michelangelo.client.client import Object

__all__ = ["FORMATS", "Format", "as_yaml", "identity", "output_option", "print_data", "print_object", "print_objects"]

Format: TypeAlias = Literal["table", "wide", "json", "yaml", "name"]
FORMATS: Final[tuple[Format, ...]] = ("table", "wide", "json", "yaml", "name")


class _Dumper(yaml.SafeDumper):
    """No aliases, and text of several lines as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def output_option(default: Format = "table") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option `-o`."""
    return click.option(
        "-o",
        "--output",
        "output",
        type=click.Choice(FORMATS),
        default=default,
        show_default=True,
        help="Output format.",
    )


def print_objects(objects: Sequence[Object], output: Format, *, with_namespace: bool = False) -> None:
    """Objects of one or several kinds, each kind a table of its own."""
    if output in ("json", "yaml"):
        print_data({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": list(objects)}, output)
    elif output == "name":
        for obj in objects:
            print(identity(obj))
    else:
        kinds = list(dict.fromkeys(obj["kind"] for obj in objects))
        for position, kind in enumerate(kinds):
            if position:
                print()
            rows = [obj for obj in objects if obj["kind"] == kind]
            known = registry.get(kind)
            prefix = f"{kind_names.snake_case(known)}/" if len(kinds) > 1 else ""
            table.print_table(known, rows, wide=output == "wide", with_namespace=with_namespace, prefix=prefix)


def print_object(obj: Object, output: Format) -> None:
    """One object, not wrapped in a list."""
    if output in ("json", "yaml"):
        print_data(obj, output)
    else:
        print_objects([obj], output)


def print_data(data: Any, output: Format) -> None:
    """Any JSON value as JSON or YAML."""
    sys.stdout.write(as_yaml(data) if output == "yaml" else json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def as_yaml(data: Any) -> str:
    """Keys in their given order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def identity(obj: Object) -> str:
    """`pipeline_run/NAME`, as every verb takes it."""
    return f"{kind_names.snake_case(registry.get(obj['kind']))}/{obj['metadata']['name']}"
