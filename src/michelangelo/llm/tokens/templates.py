"""Prompts before they are filled: f-strings and Jinja templates, found in files; what is constant, and the holes.

The constant parts are counted; each hole has the value given for it, or so many tokens as are assumed. Code of a
template runs in Jinja's sandbox, code of a Python file does not run at all. It reads no data.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2
import jinja2.nodes
import jinja2.sandbox

from michelangelo import errors
from michelangelo.llm.tokens import counting
from michelangelo.llm.tokens.counts import Count

__all__ = ["ENDINGS", "Hole", "Prompt", "compiled", "count", "find", "of_fstring", "of_jinja", "render"]

ENDINGS: Final = (".py", ".jinja", ".jinja2", ".j2")
_MOST_TOKENS: Final = 10**9
_MIN_WORDS: Final = 3
"""A shorter f-string is rather a label or a path than a prompt."""


@dataclass(frozen=True, slots=True)
class Hole:
    """What will be filled in: its expression as written."""

    name: str
    line: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A template. parts: its text and its holes in order; what a loop repeats is there once."""

    name: str
    kind: str
    parts: tuple[str | Hole, ...]

    @property
    def holes(self) -> tuple[Hole, ...]:
        return tuple(part for part in self.parts if isinstance(part, Hole))


def find(path: str) -> tuple[Prompt, ...]:
    """The prompts in a .py file (f-strings, and strings with {{ }}), or the template that another file is."""
    try:
        source = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise errors.PricingError(f"{path}: no template that can be read: {e}") from e
    if not path.endswith(".py"):
        return (of_jinja(source, path),)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as e:
        raise errors.PricingError(f"{path}: no Python that can be parsed: {e}") from e
    return tuple(prompt for prompt in _of_tree(tree, path) if _is_prompt(prompt))


def of_fstring(source: str, name: str = "f-string") -> Prompt:
    """An f-string as it is written, with its quotes. Raises PricingError."""
    try:
        node = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError) as e:
        raise errors.PricingError(f"{name}: no f-string that can be parsed: {e}") from e
    if not isinstance(node, ast.JoinedStr):
        raise errors.PricingError(f"{name}: no f-string: write it with its f and quotes")
    return Prompt(name, "f-string", tuple(_fstring_parts(node)))


def of_jinja(source: str, name: str = "template") -> Prompt:
    """A Jinja template. Raises PricingError with its line."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment()
    try:
        tree = environment.parse(source)
    except jinja2.TemplateSyntaxError as e:
        raise errors.PricingError(f"{name}:{e.lineno}: no Jinja template: {e.message}") from e
    lines = source.splitlines()
    return Prompt(name, "Jinja", tuple(_jinja_parts(tree, lines)))


def count(prompt: Prompt, model: str, *, values: Mapping[str, str], assumed: int, tokenizer: str = "") -> Count:
    """Tokens of the prompt: its text with the values in place, and `assumed` for each hole without one.

    The whole is exact only without assumed holes. Raises PricingError.
    """
    if not 0 <= assumed <= _MOST_TOKENS:
        raise errors.PricingError(f"{assumed} tokens cannot be assumed for a hole: give 0 to {_MOST_TOKENS}")
    text: list[str] = []
    unknown = 0
    for part in prompt.parts:
        if isinstance(part, str):
            text.append(part)
        elif part.name in values:
            text.append(values[part.name])
        else:
            unknown += 1
    made = counting.count("".join(text), model, tokenizer=tokenizer)
    filled = Count(assumed * unknown, assumed * unknown, assumed * unknown, unknown == 0, made.tokenizer)
    return made + filled


def compiled(source: str, name: str = "template") -> jinja2.Template:
    """A template that refuses names it does not know. Raises PricingError."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as e:
        raise errors.PricingError(f"{name}:{e.lineno}: no Jinja template: {e.message}") from e


def render(template: jinja2.Template, row: Mapping[str, Any]) -> str:
    """The prompt of a row. Raises ValueError that says what is wrong, for whoever counts bad rows."""
    try:
        return template.render(**{str(key): value for key, value in row.items()})
    except (jinja2.TemplateError, TypeError, ArithmeticError, LookupError, AttributeError) as e:
        raise ValueError(f"the template cannot be filled: {e}") from e


def _of_tree(tree: ast.AST, path: str) -> Iterator[Prompt]:
    inner = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for child in ast.walk(node)
        if child != node
    }
    for node in ast.walk(tree):
        if id(node) in inner:
            continue
        if isinstance(node, ast.JoinedStr):
            yield Prompt(f"{path}:{node.lineno}", "f-string", tuple(_fstring_parts(node)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "{{" in node.value:
            try:
                yield of_jinja(node.value, f"{path}:{node.lineno}")
            except errors.PricingError:
                continue  # Text with braces that is no template.


def _fstring_parts(node: ast.JoinedStr) -> Iterator[str | Hole]:
    for value in node.values:
        if isinstance(value, ast.Constant):
            yield str(value.value)
        elif isinstance(value, ast.FormattedValue):
            yield Hole(ast.unparse(value.value), value.lineno)


def _jinja_parts(node: jinja2.nodes.Node, lines: list[str]) -> Iterator[str | Hole]:
    for child in node.iter_child_nodes():
        if isinstance(child, jinja2.nodes.Output):
            for part in child.nodes:
                yield part.data if isinstance(part, jinja2.nodes.TemplateData) else Hole(_written(part), part.lineno)
        else:
            yield from _jinja_parts(child, lines)


def _written(node: jinja2.nodes.Node) -> str:
    """An expression about as it is written."""
    if isinstance(node, jinja2.nodes.Name):
        return node.name
    if isinstance(node, jinja2.nodes.Getattr):
        return f"{_written(node.node)}.{node.attr}"
    if isinstance(node, jinja2.nodes.Getitem):
        return f"{_written(node.node)}[{_written(node.arg)}]"
    if isinstance(node, jinja2.nodes.Filter) and node.node is not None:
        return f"{_written(node.node)}|{node.name}"
    if isinstance(node, jinja2.nodes.Const):
        return repr(node.value)
    return f"<{type(node).__name__.lower()} at line {node.lineno}>"


def _is_prompt(prompt: Prompt) -> bool:
    text = " ".join(part for part in prompt.parts if isinstance(part, str))
    return bool(prompt.holes) and len(text.split()) >= _MIN_WORDS
