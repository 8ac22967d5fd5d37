"""The options that several verbs share, each defined once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import click

__all__ = [
    "DURATION",
    "PAIR",
    "SHARE",
    "all_namespaces",
    "argument_option",
    "files",
    "namespace",
    "report_format",
    "selectors",
    "timeout",
    "wait",
]

_Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "ms": 0.001}


class _Duration(click.ParamType[float]):
    """`30s`, `5m`, `1h30m`, or seconds; gives seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        if not re.fullmatch(r"\d+(\.\d+)?|(\d+(\.\d+)?(ms|s|m|h|d))+", text):
            self.fail(f"{text!r} is no duration such as 30s, 5m or 1h30m", param, ctx)
        return sum(float(n) * _UNITS[unit] for n, _, unit in re.findall(r"(\d+(\.\d+)?)(ms|s|m|h|d|$)", text))


class _Pair(click.ParamType[tuple[str, str]]):
    """`key=value`; gives both."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals or not key:
            self.fail(f"{value!r}: write it as key=value", param, ctx)
        return key, text


DURATION: Final = _Duration()
PAIR: Final = _Pair()

namespace: Final[_Decorator] = click.option(
    "-n", "--namespace", default="", envvar="MA_NAMESPACE", metavar="NAME", help="Project; else the context's."
)
all_namespaces: Final[_Decorator] = click.option("-A", "--all-namespaces", is_flag=True, help="In all projects.")
timeout: Final[_Decorator] = click.option(
    "--timeout", type=DURATION, default="30s", show_default=True, help="Give up after this time; 0s: never."
)
wait: Final[_Decorator] = click.option(
    "--wait/--no-wait", "wait", default=False, help="Wait for the run's end, with progress."
)
argument_option: Final[_Decorator] = click.option(
    "-a",
    "--arg",
    "arguments",
    type=PAIR,
    multiple=True,
    metavar="KEY=VALUE",
    help="An argument: JSON, or else text. Repeat.",
)
files: Final[_Decorator] = click.option(
    "-f",
    "--filename",
    "filenames",
    multiple=True,
    metavar="FILE",
    help="File, folder, or - for standard input. Repeat.",
)


def selectors(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-l` and `--field-selector`."""
    command = click.option(
        "--field-selector", default="", metavar="EXPR", help="Filter by fields, such as metadata.name=x."
    )(command)
    return click.option(
        "-l", "--selector", "label_selector", default="", metavar="EXPR", help="Filter by labels: a=b,c!=d."
    )(command)


class _Share(click.ParamType[float]):
    """`3%` or `0.03`; gives a share."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            number = math.nan
        if not 0 < number < 1:
            self.fail(f"{text!r} is no share: write 3% or 0.03", param, ctx)
        return number


SHARE: Final = _Share()
"""Of an option that takes a share, 0 and 1 excluded."""


def report_format(*more: str, help: str = "Output format.") -> _Decorator:
    """`-o`, for what is no object of the API: a table, JSON or YAML, and `more`. Passed on as `output_format`."""
    return click.option(
        "-o",
        "--output",
        "output_format",
        type=click.Choice(("table", "json", "yaml", *more)),
        default="table",
        show_default=True,
        help=help,
    )
