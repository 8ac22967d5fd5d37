"""Engines by their kind: all wrong fields at once, and nothing heavy loaded for who does not ask for it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.llm.scorer.engines import opening
from michelangelo.llm.scorer.engines.http_engine.budget import Prices
from michelangelo.llm.scorer.engines.http_engine.config import HttpEngineConfig
from michelangelo.llm.scorer.engines.stub import StubConfig


def test_a_kind_and_its_fields_become_a_configuration() -> None:
    assert opening.parse({"kind": "stub", "capacity": 3}) == StubConfig(capacity=3)
    config = opening.parse({"kind": "http", "base_url": "http://127.0.0.1:8000/v1/", "model": "m"})
    assert config == HttpEngineConfig(base_url="http://127.0.0.1:8000/v1", model="m")
    assert opening.model_of(config) == "m"


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({}, ["kind"]),
        ({"kind": "magic"}, ["kind"]),
        ({"kind": "stub", "capacity": 0, "odd": 1, "latency_steps": -1}, ["capacity", "odd", "latency_steps"]),
        ({"kind": "openai", "model": "", "tasks": ["fly"]}, ["base_url", "model", "tasks.0"]),
        ({"kind": "torch", "odd": 1}, ["odd", "model"]),
        (
            {"kind": "torch", "model": "/nowhere/at/all", "max_sequences": 0, "odd": 1},
            ["odd", "model", "max_sequences"],
        ),
        ({"kind": "vllm", "max_sequences": 0}, ["model", "max_sequences"]),
    ],
)
def test_all_wrong_fields_are_told_at_once(document: dict[str, Any], fields: list[str]) -> None:
    lines = opening.problems(document)
    assert sorted(line.partition(":")[0] for line in lines) == sorted(fields)
    with pytest.raises(errors.SettingsError) as caught:
        opening.parse(document, source="job.yaml: engine")
    assert all(f"  {line}" in caught.value.message for line in lines)


def test_the_environment_holds_the_key_and_prices_come_from_outside() -> None:
    config = opening.parse(
        {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "model": "m", "api_key_env": "K", "budget_usd": 1}
    )
    with pytest.raises(errors.SettingsError, match="no price"):
        opening.open_engine(config, opening.Resources({"K": "secret"}))
    with pytest.raises(errors.EngineError, match="K is not set"):
        opening.open_engine(config, opening.Resources({}, Prices(1.0, 2.0)))
    resources = opening.Resources({"K": "secret"}, Prices(1.0, 2.0))
    assert "secret" not in repr(resources)
    opening.open_engine(config, resources).close()


def test_who_asks_for_the_stub_loads_neither_torch_nor_vllm() -> None:
    program = (
        "import sys\n"
        "from michelangelo.llm.scorer.engines import opening\n"
        "opening.open_engine(opening.parse({'kind': 'stub'})).close()\n"
        "heavy = {'torch', 'vllm', 'transformers', 'numpy', 'urllib3'} & sys.modules.keys()\n"
        "sys.exit(', '.join(heavy) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_engine_whose_library_is_absent_says_so() -> None:
    with pytest.raises(errors.EngineError, match="vLLM cannot be imported"):
        opening.open_engine(opening.parse({"kind": "vllm", "model": "m"}))
