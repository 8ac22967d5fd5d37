"""Configurations of runs and jobs: a YAML or JSON file as a mapping, and every wrong field of one in a line of its own.

It knows no field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pydantic
import yaml

from michelangelo import errors

__all__ = ["read", "wrong_fields"]

_MAX_BYTES: Final = 1_000_000


def read(path: str, *, what: str, needs: str) -> Mapping[str, Any]:
    """The document in a file, unchecked. what: "a run", for messages; needs: the fields that it must have. Raises
    SettingsError if it is no mapping."""
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise errors.SettingsError(f"{path}: larger than {_MAX_BYTES:,} bytes, so it is no configuration of {what}")
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise errors.SettingsError(f"{path}: cannot be read: {e.strerror}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise errors.SettingsError(f"{path}: is no YAML or JSON: {e}") from e
    if not isinstance(document, Mapping):
        raise errors.SettingsError(f"{path}: must be a mapping with {needs}")
    return document


def wrong_fields(source: str, error: pydantic.ValidationError) -> errors.SettingsError:
    """What to raise: all of them, with their paths and values."""
    wrong = "\n".join(line for one in error.errors() for line in _lines(one))
    return errors.SettingsError(f"{source}: wrong fields:\n{wrong}")


def _lines(error: Any) -> list[str]:
    path = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if not path:
        return [f"  {line}" for line in message.splitlines()]
    value = json.dumps(error.get("input"), default=str)
    shown = f" (it is {value})" if error["type"] != "missing" and len(value) <= 80 else ""
    return [f"  {path}: {message}{shown}"]
