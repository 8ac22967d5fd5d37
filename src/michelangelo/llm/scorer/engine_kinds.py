"""The engines by name: where each is, what configures it, what opens it. Each is loaded when it is asked for only.

A new engine is a line here. It runs nothing.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pydantic

from michelangelo import errors
from michelangelo.llm.scorer.config import EngineConfig
from michelangelo.llm.scorer.engine import Engine

__all__ = ["KINDS", "Kind", "check", "model_of", "open_engine"]

_HOME: Final = "michelangelo.llm.scorer.engines"


@dataclass(frozen=True, slots=True)
class Kind:
    """`module:name` of the configuration's class, and of what makes an engine of it."""

    config: str
    opener: str


KINDS: Final[Mapping[str, Kind]] = {
    "torch": Kind(f"{_HOME}.torch_engine.config:TorchEngineConfig", f"{_HOME}.torch_engine.opening:open_engine"),
    "vllm": Kind(f"{_HOME}.vllm_engine:VllmConfig", f"{_HOME}.vllm_engine:VllmEngine"),
    "http": Kind(f"{_HOME}.http_engine:HttpConfig", f"{_HOME}.http_engine:HttpEngine"),
    "stub": Kind(f"{_HOME}.stub:StubConfig", f"{_HOME}.stub:StubEngine"),
}


def open_engine(config: EngineConfig) -> Engine:
    """Raises EngineError, ModelError or SettingsError."""
    if config.kind == "python":
        return _own(config)
    made = _configured(config)
    engine: Engine = _found(_kind(config.kind).opener)(made)
    return engine


def check(config: EngineConfig, path: str) -> list[str]:
    """What is wrong with an engine's configuration, one line per field, without opening it."""
    try:
        if config.kind == "python":
            _target(config)
        else:
            made = _configured(config)
            problems = getattr(importlib.import_module(_kind(config.kind).config.partition(":")[0]), "problems", None)
            if problems is not None and dataclasses.is_dataclass(made):
                return [f"  {path}.{line}" for line in problems(made)]
    except errors.MichelangeloError as e:
        return [f"  {path}.{line}" if ":" in line else f"  {path}: {line}" for line in e.message.splitlines()]
    return []


def model_of(config: EngineConfig) -> str:
    """The name or the folder of its model, where it says so."""
    return str(config.options.get("model") or config.options.get("name") or config.kind)


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise errors.SettingsError(f"kind: {name} is no engine; there are {', '.join(KINDS)} and python")
    return KINDS[name]


def _configured(config: EngineConfig) -> Any:
    cls = _found(_kind(config.kind).config)
    if issubclass(cls, pydantic.BaseModel):
        try:
            return cls.model_validate(config.options)
        except pydantic.ValidationError as e:
            faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in e.errors()]
            raise errors.SettingsError("\n".join(faults)) from e
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(config.options) - known):
        raise errors.SettingsError("\n".join(f"{name}: there is no such field of {config.kind}" for name in unknown))
    try:
        return cls(**config.options)
    except TypeError as e:
        required = [
            field.name
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]
        missing = [name for name in required if name not in config.options]
        raise errors.SettingsError("\n".join(f"{name}: must be given" for name in missing) or str(e)) from e


def _found(target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as e:
        raise errors.EngineError(f"the engine needs a library that is not installed: {e}") from e


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
