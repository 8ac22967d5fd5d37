"""A configuration file with some fields changed from outside: `training.max_steps=10`, the value as YAML.

All that is wrong, in the file and in the changes, is one error. What a field may hold is `config`'s to say.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from michelangelo import errors
from michelangelo.llm.finetune import config as configuration
from michelangelo.llm.finetune.config import FinetuneConfig

__all__ = ["apply", "load"]


def load(path: str, changes: Sequence[str] = ()) -> FinetuneConfig:
    """Raises SettingsError."""
    document, wrong = apply(configuration.read(path), changes)
    try:
        config = configuration.parse(document, source=path)
    except errors.SettingsError as e:
        wrong = [*e.message.splitlines()[1:], *wrong]
    else:
        if not wrong:
            return config
    raise errors.SettingsError(f"{path}: wrong fields:\n" + "\n".join(wrong))


def apply(document: Mapping[str, Any], changes: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """A changed copy, and a line for each change that could not be made. Numbers in a path count items of a list:
    `data.train.0.path=rows.jsonl`; a change to a section that is not there makes it."""
    changed = copy.deepcopy(dict(document))
    wrong: list[str] = []
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path or "" in path.split("."):
            wrong.append(f"  {change}: is no change PATH=VALUE, such as training.max_steps=10")
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as e:
            wrong.append(f"  {path}: the value {text!r} is no YAML: {str(e).splitlines()[0]}")
            continue
        if reason := _put(changed, path.split("."), value):
            wrong.append(f"  {path}: {reason}")
    return changed, wrong


def _put(section: Any, path: Sequence[str], value: Any) -> str:
    """Why it cannot be put there, or nothing."""
    *parents, last = path
    for done, name in enumerate(parents, start=1):
        place, reason = _place(section, name)
        if reason:
            return reason
        if isinstance(section, dict) and section.get(name) is None:
            section[name] = {}
        section = section[place]
        if not isinstance(section, dict | list):
            return f"{'.'.join(path[:done])} is a value and has no fields"
    place, reason = _place(section, last)
    if not reason:
        section[place] = value
    return reason


def _place(section: dict[str, Any] | list[Any], name: str) -> tuple[Any, str]:
    """The key or the index, and why there is none."""
    if isinstance(section, dict):
        return name, ""
    if name.isascii() and name.isdigit() and int(name) < len(section):
        return int(name), ""
    return None, f"{name} is no item of a list of {len(section)}, counted from 0"
