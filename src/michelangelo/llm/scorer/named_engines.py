"""Engines from what a user writes: a file or a short text with a kind and its fields. It opens, and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from michelangelo import errors
from michelangelo.llm.scorer import engine_kinds
from michelangelo.llm.scorer.config import EngineConfig
from michelangelo.llm.scorer.engine import Engine
from michelangelo.llm.scorer.engines import opening

__all__ = ["open_all", "open_engine"]


def open_engine(text: str, environment: Mapping[str, str] | None = None) -> Engine:
    """From a YAML or JSON file with `kind` and the fields of that kind, or from the same as a flow mapping:
    `{kind: http, model: …}`. environment: where keys are looked up. Raises SettingsError, EngineError or ModelError."""
    document = _document(text)
    if isinstance(document.get("engine"), Mapping):
        # A scorer's job file names its engine so.
        document = dict(document["engine"])
    if not isinstance(document.get("kind"), str):
        raise errors.SettingsError(f"{text} names no engine: give its kind, one of {', '.join(opening.KINDS)}, python")
    config = EngineConfig.model_validate(document)
    if wrong := engine_kinds.check(config, "engine"):
        raise errors.SettingsError(f"{text} is no engine:\n" + "\n".join(wrong))
    return engine_kinds.open_engine(config, environment)


def open_all(texts: Mapping[str, str], environment: Mapping[str, str] | None = None) -> dict[str, Engine]:
    """Several by name; what was opened is closed again when one fails."""
    made: dict[str, Engine] = {}
    try:
        for name, text in texts.items():
            made[name] = open_engine(text, environment)
    except errors.MichelangeloError:
        for engine in made.values():
            engine.close()
        raise
    return made


def _document(text: str) -> dict[str, Any]:
    content = text
    if not text.lstrip().startswith("{"):
        try:
            content = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise errors.SettingsError(
                f"{text} is no file that names an engine ({getattr(e, 'strerror', e)}): write YAML with `kind: …`"
            ) from e
    try:
        document = yaml.safe_load(content)
    except yaml.YAMLError as e:
        raise errors.SettingsError(f"{text} is not YAML: {e}") from e
    if not isinstance(document, dict):
        raise errors.SettingsError(f"{text} must be a mapping with `kind`")
    return document
