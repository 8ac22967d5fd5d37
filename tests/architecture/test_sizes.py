"""Budgets: what is too large to be read in one go fails."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE_LINES = 800
FUNCTION_LINES = 100
CLASS_LINES = 300
PARAMETERS = 8
BANNED_MODULES = re.compile(r"^(utils?|helpers?|common|misc|base_\w+|\w+_impl|manager2)$")
BANNED_CLASSES = re.compile(r"^(Abstract\w+|Base\w+Impl|\w+Impl|I[A-Z][a-z]\w+Interface)$")
FOLDERS = ("src", "tests", "examples", "benchmarks", "scripts")


def test_files_are_short(checkout: Path) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in _python_files(checkout)}
    assert [f"{path}: {lines}" for path, lines in lengths.items() if lines > FILE_LINES] == []


def test_functions_are_short(sources: list[Any]) -> None:
    too_long = [
        f"{source.name}.{node.name}: {_length(node)} lines"
        for source in sources
        for node in _functions(source.tree)
        if _length(node) > FUNCTION_LINES
    ]
    assert too_long == []


def test_functions_take_few_parameters(sources: list[Any]) -> None:
    too_many = [
        f"{source.name}.{node.name}: {_num_parameters(node)} parameters"
        for source in sources
        for node in _functions(source.tree)
        if _num_parameters(node) > PARAMETERS
    ]
    assert too_many == []


def test_classes_are_short(sources: list[Any]) -> None:
    too_long = [
        f"{source.name}.{node.name}: {_length(node)} lines"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and _length(node) > CLASS_LINES
    ]
    assert too_long == []


def test_names_say_what_a_module_is_for(sources: list[Any]) -> None:
    modules = [source.name for source in sources if BANNED_MODULES.match(source.name.rpartition(".")[2])]
    classes = [
        f"{source.name}.{node.name}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and BANNED_CLASSES.match(node.name)
    ]
    assert modules + classes == []


def test_modules_open_with_a_docstring(checkout: Path) -> None:
    missing = [
        str(path)
        for path in _python_files(checkout)
        if path.stat().st_size and ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert missing == []


def _python_files(checkout: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted((checkout / folder).rglob("*.py"))


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _num_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = node.args
    return len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
