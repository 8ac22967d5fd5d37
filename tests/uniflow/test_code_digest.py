"""The digest of code: what changes it, and what does not. Each variant is a module of the user's own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from michelangelo.uniflow import source
from michelangelo.uniflow.code_digest import code_digest

BASE = '''
import math
import enum
import dataclasses
from michelangelo import uniflow
import other
from other import assistant

RATE = 0.1
TABLE = {"a": [1, 2]}
OPTIONS = {"x", "y", "z"}

class Kind(enum.Enum):
    A = 1

@dataclasses.dataclass
class Config:
    depth: int = 3
    def double(self):
        return self.depth * 2

PRESET = Config(7)

def helper(x):
    """Documented."""
    return [math.sqrt(y) for y in range(x)]

def unrelated():
    return 1

@uniflow.task
def step(n, config=None):
    if n in {"p", "q", "r"}:
        return Kind.A
    inner = lambda v: helper(v)
    other.deep(n)
    return inner(n), RATE, TABLE, OPTIONS, PRESET, Config().double(), assistant(n)
'''
OTHER = """
def assistant(n):
    return n + 1

def deep(n):
    return deeper(n)

def deeper(n):
    return n * 2

def unused():
    return 0
"""

Digest = Callable[[str, str], str]


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Digest]:
    """The digest of `step` for the texts of two modules, each time in a folder of its own."""
    count = 0

    def compute(base: str, other: str) -> str:
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "flow.py").write_text(base)
        (folder / "other.py").write_text(other)
        for name in ("flow", "other"):
            sys.modules.pop(name, None)
        monkeypatch.syspath_prepend(str(folder))
        return code_digest(source.load_file(str(folder / "flow.py")).step)

    yield compute
    for name in ("flow", "other"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


SAME = {
    "another folder": lambda base: base,
    "comments and blank lines": lambda base: base.replace("def helper(x):", "# why\n\n\ndef helper(x):\n    # here"),
    "docstring": lambda base: base.replace("Documented.", "Described otherwise."),
    "unrelated function": lambda base: base.replace("    return 1\n", "    return 2\n"),
    "order of definitions": lambda base: base.replace("RATE = 0.1\n", "").replace(
        "import enum\n", "import enum\nRATE = 0.1\n"
    ),
    "options of the task": lambda base: base.replace("@uniflow.task\n", "@uniflow.task(retry_attempts=3)\n"),
    "spaces": lambda base: base.replace("self.depth * 2", "(self.depth   *   2)"),
}
CHANGED = {
    "body": lambda base: base.replace("Config().double(), a", "Config().double() + 1, a"),
    "called function": lambda base: base.replace("math.sqrt(y)", "math.exp(y)"),
    "constant": lambda base: base.replace("RATE = 0.1", "RATE = 0.2"),
    "table": lambda base: base.replace("[1, 2]", "[1, 3]"),
    "set": lambda base: base.replace('OPTIONS = {"x"', 'OPTIONS = {"w"'),
    "literal set": lambda base: base.replace('{"p", "q"', '{"o", "q"'),
    "default of a parameter": lambda base: base.replace("config=None", "config=1"),
    "default of a field": lambda base: base.replace("depth: int = 3", "depth: int = 4"),
    "method": lambda base: base.replace("self.depth * 2", "self.depth * 3"),
    "field of a constant": lambda base: base.replace("PRESET = Config(7)", "PRESET = Config(8)"),
    "value of an enum": lambda base: base.replace("    A = 1", "    A = 2"),
    "lambda": lambda base: base.replace("helper(v)", "helper(v + 1)"),
}


@pytest.mark.parametrize("edit", SAME.values(), ids=SAME)
def test_digest_stays_when_nothing_that_counts_changes(digest: Digest, edit: Callable[[str], str]) -> None:
    assert digest(edit(BASE), OTHER) == digest(BASE, OTHER)


@pytest.mark.parametrize("edit", CHANGED.values(), ids=CHANGED)
def test_digest_changes_with_the_code(digest: Digest, edit: Callable[[str], str]) -> None:
    assert edit(BASE) != BASE
    assert digest(edit(BASE), OTHER) != digest(BASE, OTHER)


def test_digest_follows_the_users_own_modules(digest: Digest) -> None:
    base = digest(BASE, OTHER)
    assert digest(BASE, OTHER.replace("n + 1", "n + 2")) != base
    assert digest(BASE, OTHER.replace("n * 2", "n * 3")) != base
    assert digest(BASE, OTHER.replace("return 0", "return 9")) == base


def test_closures_and_recursion_count(digest: Digest) -> None:
    text = textwrap.dedent(
        """
        def make(factor):
            def step(n):
                return n * factor if n < 2 else step(n - 1) + even(n)
            return step
        def even(n):
            return n == 0 or odd(n - 1)
        def odd(n):
            return n != 0 and even(n - 1)
        step = make(3)
        """
    )
    assert digest(text, OTHER) == digest(text, OTHER)
    assert digest(text.replace("make(3)", "make(4)"), OTHER) != digest(text, OTHER)
    assert digest(text.replace("n != 0", "n > 0"), OTHER) != digest(text, OTHER)


def test_digest_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(
        BASE + "\nif __name__ == '__main__':\n    from michelangelo.uniflow.code_digest import code_digest\n"
        "    print(code_digest(step))\n"
    )
    (tmp_path / "other.py").write_text(OTHER)
    commands = [
        ["flow.py"],
        ["-c", "import flow\nfrom michelangelo.uniflow.code_digest import *\nprint(code_digest(flow.step))"],
    ]
    found = {
        subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "77")
        for command in commands
    }
    assert len(found) == 1
