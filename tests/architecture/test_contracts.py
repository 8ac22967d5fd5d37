"""Each import contract holds, and is proved to bite: a violation is injected into a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

VIOLATIONS = [
    ("layers", "meta", "import michelangelo.api"),
    ("layers", "blobs", "import michelangelo.client"),
    ("layers", "executors", "import michelangelo.uniflow"),
    ("layers", "apiserver", "import michelangelo.controllers"),
    ("layers", "worker", "import michelangelo.controllers"),
    ("layers", "uniflow", "import michelangelo.app"),
    ("layers", "errors", "import michelangelo.meta"),
    ("layers", "uniflow", "import michelangelo.workflow"),
    ("layers", "workflow", "import michelangelo.engine"),
    ("layers", "newroom", "import os"),
    ("storage", "engine", "import michelangelo.storage.store"),
    ("storage", "cli", "import michelangelo.storage.store"),
    ("executors", "engine", "import michelangelo.executors.injected_target"),
    ("executors", "controllers", "import michelangelo.executors.injected_target"),
    ("uniflow-light", "uniflow", "import pydantic"),
    ("uniflow-light", "uniflow", "def late() -> None:\n    import michelangelo.api.v2.registry"),
    ("cli-thin", "cli", "import michelangelo.engine.journal"),
    ("home-sqlite3", "app", "import sqlite3"),
    ("home-http-server", "client", "from starlette import routing"),
    ("home-http-client", "app", "import urllib3.util"),
    ("home-fsspec", "worker", "import fsspec"),
    ("home-click", "app", "import click"),
    ("home-data", "engine", "def late() -> None:\n    import numpy"),
    ("home-data", "executors", "import torch"),
    ("home-ray", "engine", "import ray"),
    ("home-spark", "uniflow", "def late() -> None:\n    import pyspark"),
    ("home-heavy", "app", "import kubernetes"),
    ("home-llm", "engine", "def late() -> None:\n    import transformers"),
    ("llm-alone", "llm", "import michelangelo.meta"),
    ("plan-light", "llm/planner", "def late() -> None:\n    import torch"),
]


def test_contracts_hold(checkout: Path) -> None:
    result = _lint(checkout)
    assert result.returncode == 0, result.stdout


def test_every_contract_has_an_injected_violation(checkout: Path) -> None:
    assert set(_names(checkout)) == {contract for contract, _, _ in VIOLATIONS}


@pytest.mark.parametrize(("contract", "room", "line"), VIOLATIONS, ids=lambda value: str(value).partition("\n")[0])
def test_contract_catches_injected_import(copy: Path, contract: str, room: str, line: str) -> None:
    _inject(copy, room, line)
    result = _lint(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    assert _broken(result.stdout, copy) == {contract}


@pytest.fixture
def copy(checkout: Path, tmp_path: Path) -> Path:
    shutil.copytree(checkout / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(checkout / "pyproject.toml", tmp_path)
    return tmp_path


def _inject(copy: Path, room: str, line: str) -> None:
    package = copy / "src" / "michelangelo"
    (package / "executors" / "injected_target.py").touch()
    if (package / f"{room}.py").exists():
        with (package / f"{room}.py").open("a", encoding="utf-8") as module:
            module.write(f"\n{line}\n")
        return
    (package / room).mkdir(exist_ok=True)
    (package / room / "__init__.py").touch()
    (package / room / "injected.py").write_text(f"{line}\n", encoding="utf-8")


def _lint(root: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    environment = os.environ | {"PYTHONPATH": str(root / "src"), "COLUMNS": "200", "NO_COLOR": "1"}
    command = [str(program), "--no-logo", "--no-cache", "--config", str(root / "pyproject.toml")]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def _names(root: Path) -> dict[str, str]:
    document = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["id"]: contract["name"] for contract in document["tool"]["importlinter"]["contracts"]}


def _broken(output: str, root: Path) -> set[str]:
    flat = re.sub(r"\s+", " ", output)
    return {contract for contract, name in _names(root).items() if f"{name} BROKEN" in flat}
