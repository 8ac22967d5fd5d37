"""What the configurations of clusters have in common: fields as plain JSON, and fields that variables set.

`RAY_DEFAULT_HEAD_CPU=4` is for every task that leaves `head_cpu` open; `RAY_OVERRIDE_HEAD_CPU.flow.train=8` is for the
task `train` of the module `flow`, whatever its code says. Which variables there are is the host's matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from michelangelo.uniflow import config
from michelangelo.uniflow.config import TaskConfig

__all__ = ["check", "overridden", "settings"]

_C = TypeVar("_C", bound=TaskConfig)

_SIZES = ("memory", "disk")
_NUMBERS = ("cpu", "gpu")


def check(task: TaskConfig) -> None:
    """Raises ValueError that names the first wrong field: negative numbers, quantities that are none."""
    for name, value in _given(task):
        if _ends(name, _NUMBERS) and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
            raise ValueError(f"{type(task).__name__}({name}={value!r}): must be a number, 0 or more")
        if name.endswith("_instances") and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise ValueError(f"{type(task).__name__}({name}={value!r}): must be a whole number, 0 or more")
        if _ends(name, _SIZES):
            try:
                config.memory_bytes(value)
            except ValueError as error:
                raise ValueError(f"{type(task).__name__}({name}={value!r}): {error}") from error


def settings(task: TaskConfig) -> dict[str, Any]:
    """The fields that are given, as plain JSON; sizes in bytes."""
    return {name: _plain(name, value) for name, value in _given(task)}


def overridden(task: _C, prefix: str, variables: Mapping[str, str], task_path: str) -> _C:
    """`task` with what `<prefix>_DEFAULT_<FIELD>` and `<prefix>_OVERRIDE_<FIELD>.<task_path>` of `variables` say.
    Raises ValueError that names the variable."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(task):
        override = f"{prefix}_OVERRIDE_{field.name.upper()}.{task_path}"
        default = f"{prefix}_DEFAULT_{field.name.upper()}"
        name = override if override in variables else default if getattr(task, field.name) is None else ""
        if name in variables:
            changes[field.name] = _read(name, field.name, variables[name])
    return dataclasses.replace(task, **changes) if changes else task


def _read(variable: str, field: str, text: str) -> Any:
    try:
        if _ends(field, _NUMBERS):
            return float(text)
        if field.endswith("_instances"):
            return int(text)
    except ValueError as error:
        raise ValueError(f"{variable}={text!r}: must be a number") from error
    if field == "breakpoint":
        return text.strip().lower() in ("1", "true", "yes")
    if field in ("runtime_env", "custom_resources"):
        raise ValueError(f"{variable}: {field} cannot be given by a variable")
    return text


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return config.memory_bytes(value) if _ends(name, _SIZES) else value


def _given(task: TaskConfig) -> list[tuple[str, Any]]:
    pairs = ((field.name, getattr(task, field.name)) for field in dataclasses.fields(task))
    return [(name, value) for name, value in pairs if value is not None]


def _ends(name: str, words: tuple[str, ...]) -> bool:
    return name.rpartition("_")[2] in words
