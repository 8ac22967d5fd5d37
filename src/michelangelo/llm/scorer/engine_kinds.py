"""A job's engines: those of `engines.opening` by their kind, and one of a user's own from a Python file.

It opens and checks; it runs nothing. Variables of the environment come from who starts the job.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path

from michelangelo import errors
from michelangelo.llm.scorer.config import EngineConfig
from michelangelo.llm.scorer.engine import Engine
from michelangelo.llm.scorer.engines import opening

__all__ = ["check", "open_engine", "variables_of"]

_OWN = "python"


def open_engine(config: EngineConfig, environment: Mapping[str, str] | None = None) -> Engine:
    """Raises EngineError, ModelError or SettingsError."""
    if config.kind == _OWN:
        return _own(config)
    parsed = opening.parse({"kind": config.kind, **config.options})
    return opening.open_engine(parsed, opening.Resources(environment=environment or {}))


def check(config: EngineConfig, path: str) -> list[str]:
    """What is wrong with an engine's configuration, one line per field, without opening it."""
    if config.kind == _OWN:
        try:
            _target(config)
        except errors.SettingsError as e:
            return [f"  {path}.{e.message}"]
        return []
    lines = opening.problems({"kind": config.kind, **config.options})
    return [f"  {path}.{line}" + (f" and {_OWN}" if line.startswith("kind:") else "") for line in lines]


def variables_of(config: EngineConfig) -> list[str]:
    """Names of the variables of the environment that it wants."""
    return [str(value) for name, value in config.options.items() if name.endswith("_env") and value]


def _own(config: EngineConfig) -> Engine:
    file, function = _target(config)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise errors.SettingsError(f"target: {file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        opener = getattr(module, function)
    except (OSError, ImportError, SyntaxError, AttributeError) as e:
        raise errors.EngineError(f"engine.target {file}:{function} cannot be loaded: {e}") from e
    options = {name: value for name, value in config.options.items() if name != "target"}
    try:
        inspect.signature(opener).bind(**options)
    except TypeError as e:
        raise errors.EngineError(f"engine.target {file}:{function} does not take these options: {e}") from e
    engine: Engine = opener(**options)
    return engine


def _target(config: EngineConfig) -> tuple[Path, str]:
    file, _, function = str(config.options.get("target", "")).rpartition(":")
    if not file or not function.isidentifier():
        raise errors.SettingsError("target: must be FILE.py:FUNCTION for the kind python")
    if not Path(file).is_file():
        raise errors.SettingsError(f"target: there is no file {file}")
    return Path(file), function
