"""From a kind and its fields to an engine: which engines there are, and what is wrong with a configuration.

Configurations are light and imported here; an engine's own module, and with it torch or vLLM, only when one is opened.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import pydantic

from michelangelo import errors
from michelangelo.llm.scorer.engine import Engine
from michelangelo.llm.scorer.engines import stub, vllm_engine
from michelangelo.llm.scorer.engines.http_engine.budget import Prices
from michelangelo.llm.scorer.engines.http_engine.config import HttpEngineConfig
from michelangelo.llm.scorer.engines.stub import StubConfig
from michelangelo.llm.scorer.engines.torch_engine import config as torch_config
from michelangelo.llm.scorer.engines.torch_engine.config import TorchEngineConfig
from michelangelo.llm.scorer.engines.vllm_engine import VllmConfig

__all__ = ["KINDS", "EngineConfig", "Resources", "model_of", "open_engine", "parse", "problems"]

EngineConfig: TypeAlias = HttpEngineConfig | StubConfig | TorchEngineConfig | VllmConfig
_HOME: Final = "michelangelo.llm.scorer.engines"
KINDS: Final[Mapping[str, type[EngineConfig]]] = {
    "torch": TorchEngineConfig,
    "vllm": VllmConfig,
    "openai": HttpEngineConfig,
    "http": HttpEngineConfig,
    "stub": StubConfig,
}
"""By what a configuration calls them; `http` and `openai` are the same."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What an engine is given by who opens it, and what no configuration holds.

    environment: variables in which keys are looked up. prices: of the engine's model, where its configuration has none.
    """

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    prices: Prices | None = None


def parse(document: Mapping[str, Any], *, source: str = "engine") -> EngineConfig:
    """`kind` and the fields of that kind. Raises SettingsError that names every wrong field."""
    config, wrong = _read(document)
    if config is None or wrong:
        raise errors.SettingsError(f"{source}: wrong fields:\n" + "\n".join(f"  {line}" for line in wrong))
    return config


def problems(document: Mapping[str, Any]) -> list[str]:
    """A line `FIELD: what is wrong` for each of them. Empty: `parse` succeeds."""
    return _read(document)[1]


def open_engine(config: EngineConfig, resources: Resources | None = None) -> Engine:
    """Raises EngineError, or ModelError for a folder that holds no model; SettingsError for a budget without prices."""
    given = resources or Resources()
    engine: Engine
    match config:
        case StubConfig():
            engine = stub.StubEngine(config)
        case HttpEngineConfig():
            module = _loaded("http_engine.engine")
            engine = module.HttpEngine(config, environment=given.environment, prices=given.prices)
        case VllmConfig():
            engine = vllm_engine.open_engine(config)
        case TorchEngineConfig():
            engine = _loaded("torch_engine.engine").open_engine(config)
    return engine


def model_of(config: EngineConfig) -> str:
    """The name or the folder of its model."""
    return config.name if isinstance(config, StubConfig) else config.model


def _read(document: Mapping[str, Any]) -> tuple[EngineConfig | None, list[str]]:
    values = dict(document)
    kind = values.pop("kind", None)
    if kind not in KINDS:
        said = "must be given" if kind is None else f"{kind!r} is no engine"
        return None, [f"kind: {said}; there are {', '.join(KINDS)}"]
    cls = KINDS[kind]
    unknown: list[str] = []
    if dataclasses.is_dataclass(cls):
        # Pydantic leaves out what a dataclass does not know, and says nothing.
        known = {each.name for each in dataclasses.fields(cls)}
        unknown = [f"{name}: there is no such field" for name in values if name not in known]
        values = {name: value for name, value in values.items() if name in known}
    try:
        config: EngineConfig = pydantic.TypeAdapter(cls).validate_python(values)
    except pydantic.ValidationError as e:
        return None, [*unknown, *(line for each in e.errors() for line in _lines(each))]
    if isinstance(config, TorchEngineConfig):
        unknown += torch_config.problems(config)
    return config, unknown


def _lines(error: Any) -> list[str]:
    path = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return [f"{path}: there is no such field"]
        case "missing" | "missing_keyword_only_argument" | "missing_argument":
            return [f"{path}: must be given"]
    if not path:
        return message.splitlines()
    value = json.dumps(error.get("input"), default=str)
    return [f"{path}: {message}{f' (it is {value})' if len(value) <= 80 else ''}"]


def _loaded(name: str) -> Any:
    try:
        return importlib.import_module(f"{_HOME}.{name}")
    except ImportError as e:
        raise errors.EngineError(f"the engine needs a library that is not installed: {e}") from e
