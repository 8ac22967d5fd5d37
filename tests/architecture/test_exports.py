"""`__all__` is exact: it lists what a module defines for others, and nothing that is not there."""

from __future__ import annotations

import ast
import importlib
from typing import Any


def test_modules_export_exactly_what_they_define(sources: list[Any]) -> None:
    wrong = []
    for source in sources:
        if source.is_package:
            continue
        exported, defined = _exported(source.tree), _defined(source.tree)
        if exported is None:
            wrong.append(f"{source.name}: has no literal __all__")
        elif set(exported) != defined:
            wrong.append(f"{source.name}: {sorted(set(exported) ^ defined)}")
        elif len(exported) != len(set(exported)):
            wrong.append(f"{source.name}: names something twice")
    assert wrong == []


def test_packages_export_what_they_bring_in(sources: list[Any]) -> None:
    wrong = []
    for source in sources:
        brought = _defined(source.tree) | _imported_from_ours(source.tree)
        if source.is_package and brought - set(_exported(source.tree) or ()):
            wrong.append(f"{source.name}: {sorted(brought - set(_exported(source.tree) or ()))}")
    assert wrong == []


def test_exported_names_exist(sources: list[Any]) -> None:
    missing = []
    for source in sources:
        if source.name.endswith("__main__"):
            continue
        module = importlib.import_module(source.name)
        missing += [f"{source.name}.{name}" for name in _exported(source.tree) or () if not hasattr(module, name)]
    assert missing == []


def _exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            return list(ast.literal_eval(node.value))
    return None


def _defined(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and not _is_private_by_custom(node.value):
            names.update(name for target in node.targets for name in _bound(target))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def _is_private_by_custom(value: ast.expr) -> bool:
    """Loggers and type variables have their usual names, and are nobody else's."""
    return isinstance(value, ast.Call) and ast.unparse(value.func) in {"logging.getLogger", "TypeVar", "ParamSpec"}


def _bound(target: ast.expr) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _imported_from_ours(tree: ast.Module) -> set[str]:
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("michelangelo.")
        for alias in node.names
    }
