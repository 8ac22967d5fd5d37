"""The package as text and as syntax trees, parsed once for all architecture tests."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Source:
    """One module of the package."""

    path: Path
    name: str
    tree: ast.Module
    num_lines: int

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"


@pytest.fixture(scope="session")
def sources(checkout: Path) -> list[Source]:
    root = checkout / "src"
    found = [_read(path, root) for path in sorted((root / "michelangelo").rglob("*.py"))]
    assert len(found) > 10, "the package was not found, so nothing would be tested"
    return found


def _read(path: Path, root: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Source(path, name, ast.parse(text, filename=str(path)), text.count("\n"))
