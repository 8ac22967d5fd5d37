"""Random workflow programs for the graph: every way to call a task that the source shows, and a few that it hides.

Every task returns a token of its own, so what a step was given says which steps its data came from.
"""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["generate"]

_HEAD = """
import functools
import itertools
from dataclasses import dataclass
from typing import Any

from michelangelo import uniflow

COUNTER = itertools.count()


def token() -> str:
    return f"<{next(COUNTER)}>"


@uniflow.task
def one(value: Any = "", other: Any = "") -> str:
    return token()


@uniflow.task(alias="second")
def two(value: Any, *more: Any, **named: Any) -> str:
    return token()


@uniflow.task
def boom(value: Any) -> str:
    raise ValueError("boom")


@dataclass
class Box:
    left: Any
    right: Any = ""


TABLE = {"a": one, "b": two}
STAGES = [one, two]
later = functools.partial(one, other="later")


def again(value, times):
    if times <= 0:
        return one(value)
    return two(again(value, times - 1))


def stream(value, times):
    for number in range(times):
        yield one(value, number)


def apply(function, value):
    return function(value)
"""


def generate(chance: random.Random, size: int) -> str:
    """The source of a file whose workflow is `flow`."""
    writer = _Writer(chance)
    parts = [_HEAD.strip()]
    for number in range(2):
        parts.append(writer.function(f"helper_{number}", "", 3, ()))
    for number in range(2):
        parts.append(writer.function(f"nested_{number}", "@uniflow.workflow", 3, ("helper_0", "helper_1")))
    known = ("helper_0", "helper_1", "nested_0", "nested_1")
    parts.append(writer.function("flow", "@uniflow.workflow", size, known))
    return "\n\n\n".join(parts) + "\n"


class _Writer:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._names = 0
        self._known: list[str] = []
        self._callees: tuple[str, ...] = ()

    def function(self, name: str, decorator: str, size: int, callees: tuple[str, ...]) -> str:
        self._known, self._callees = ["start"], callees
        lines = [decorator] if decorator else []
        lines.append(f'def {name}(start="s"):')
        lines += self._block(size, depth=0)
        lines.append(f"    return {self._data()}")
        return "\n".join(lines)

    def _block(self, size: int, depth: int) -> list[str]:
        """Names that a block defines are not known after it: it may not have run."""
        before = list(self._known)
        lines = [f"    {line}" for _ in range(size) for line in self._statement(depth)]
        self._known = before
        return lines or ["    pass"]

    def _statement(self, depth: int) -> list[str]:
        simple: list[Callable[[], list[str]]] = [
            self._call,
            self._call,
            self._submit,
            self._map,
            self._submit_all,
            self._comprehension,
            self._lazy,
            self._lambda,
            self._closure,
            self._container,
            self._unpack,
            self._hidden,
            self._table,
            self._choice,
            self._callback,
            self._recursion,
            self._observed,
            self._partial,
        ]
        nested: list[Callable[[int], list[str]]] = [self._if, self._for, self._while, self._try, self._match]
        if depth < 2 and self._chance.random() < 0.4:
            return self._chance.choice(nested)(depth)
        return self._chance.choice(simple)()

    def _new(self) -> str:
        self._names += 1
        return f"v{self._names}"

    def _define(self, expression: str) -> list[str]:
        name = self._new()
        self._known.append(name)
        return [f"{name} = {expression}"]

    def _var(self) -> str:
        return self._chance.choice(self._known[-4:])

    def _data(self) -> str:
        a, b = self._var(), self._var()
        return self._chance.choice(
            [
                a,
                a,
                f'f"{{{a}}}-{{{b}}}"',
                f"[{a}, {b}]",
                f'{{"k": {a}}}',
                f"({a}, {b})",
                f"str({a}) + str({b})",
                f"str({a}).upper()",
            ]
        )

    def _task(self) -> str:
        return self._chance.choice(["one", "two", 'one.with_overrides(alias="other")', "STAGES[1]", 'TABLE["a"]'])

    def _call(self) -> list[str]:
        callee = self._chance.choice([*self._callees, self._task(), self._task()])
        return self._define(f"{callee}({self._data()})")

    def _submit(self) -> list[str]:
        future, task = self._new(), self._task()
        lines = [f"{future} = {task}.submit({self._data()})"]
        if self._chance.random() < 0.5:
            lines += [f"{future} = (two", f"    .submit({future}, extra={self._data()}))"]
        return lines + self._define(f"{future}.result()")

    def _map(self) -> list[str]:
        count = self._chance.randrange(3)
        return self._define(f"one.map([{self._data()} for _ in range({count})], other={self._var()}).result()")

    def _submit_all(self) -> list[str]:
        futures = self._new()
        return [
            f"{futures} = []",
            f"for number in range({self._chance.randrange(3)}):",
            f"    {futures}.append({self._task()}.submit({self._data()}))",
            *self._define(f"[future.result() for future in {futures}]"),
        ]

    def _comprehension(self) -> list[str]:
        return self._define(
            self._chance.choice(
                [
                    f"[one({self._data()}) for _ in range(2)]",
                    f"[two(x, {self._var()}) for x in [one({self._data()}), {self._var()}] if len(str(x)) % 2]",
                    f"{{str(n): one({self._var()}) for n in range(2)}}",
                    f"[[two(n, m) for m in range(2)] for n in [one({self._var()})]]",
                    f"[one(m) for n in [{self._var()}, {self._var()}] for m in [two(n)]]",
                ]
            )
        )

    def _lazy(self) -> list[str]:
        return self._define(
            self._chance.choice(
                [
                    f'"".join(one({self._data()}) for _ in range(2))',
                    f"[two(item) for item in stream({self._data()}, 2)]",
                    f"sorted(one(x) for x in [{self._var()}, {self._var()}])",
                ]
            )
        )

    def _lambda(self) -> list[str]:
        function = self._new()
        return [
            f"{function} = lambda q: {self._task()}(q, {self._var()})",
            *self._define(f"{function}({self._data()})"),
        ]

    def _closure(self) -> list[str]:
        function = self._new()
        return [
            f"def {function}(q):",
            f"    return one(q, {self._var()})",
            *self._define(f"{function}({self._data()})"),
            *self._define(f"{function}({self._data()})"),
        ]

    def _container(self) -> list[str]:
        box = self._new()
        first = self._chance.choice(
            [
                [f"{box} = Box({self._var()}, right=one({self._var()}))", f"{box}.left = two({self._var()})"],
                [f"{box} = {{}}", f'{box}["k"] = one({self._data()})', f'{box}["l"] = {self._var()}'],
                [f"{box} = []", f"{box}.append(two({self._data()}))", f"{box} += [{self._var()}]"],
            ]
        )
        got = f"{box}.left" if "Box" in first[0] else f'{box}["k"]' if "{}" in first[0] else f"{box}[0]"
        return [*first, *self._define(f"one({got}, {self._var()})")]

    def _unpack(self) -> list[str]:
        a, b = self._new(), self._new()
        line = self._chance.choice(
            [
                f"{a}, {b} = one({self._data()}), two({self._var()})",
                f"{a}, *{b} = [one({self._data()}), {self._var()}]",
                f"({a}, {b}), _ = (one({self._var()}), {self._var()}), two(1)",
            ]
        )
        self._known += [a, b]
        return [line]

    def _hidden(self) -> list[str]:
        """Only a run knows which task it is."""
        word = self._chance.choice(["a", "b"])
        return [
            f"key = {word!r}",
            *self._define(
                self._chance.choice(
                    [
                        f"TABLE[key]({self._data()})",
                        f"getattr(uniflow, 'x', one)({self._data()})",
                        f"TABLE.get(key)({self._var()})",
                    ]
                )
            ),
        ]

    def _table(self) -> list[str]:
        return [
            f"for stage in (one, two{', later' if self._chance.random() < 0.5 else ''}):",
            f"    stage({self._data()})",
        ]

    def _choice(self) -> list[str]:
        a = self._var()
        return self._define(
            self._chance.choice(
                [
                    f"one({a}) if len(str({a})) % 2 else two({a})",
                    f"len(str({a})) % 2 and one({a}) or two({self._data()})",
                    f"(len(str({a})) % 2 == 0 and one({a}))",
                ]
            )
        )

    def _callback(self) -> list[str]:
        return self._define(
            self._chance.choice(
                [
                    f"list(map(one, [{self._var()}, {self._var()}]))",
                    f"sorted([{self._var()}, {self._var()}], key=lambda q: one(q))",
                    f"functools.reduce(lambda a, b: two(a, b), [{self._var()}, {self._var()}, 'x'])",
                    f"apply(two, {self._data()})",
                    f"apply(lambda q: one(q), {self._data()})",
                    f"later({self._data()})",
                ]
            )
        )

    def _recursion(self) -> list[str]:
        return self._define(f"again({self._data()}, {self._chance.randrange(3)})")

    def _observed(self) -> list[str]:
        return self._chance.choice([["uniflow.sleep(0)"], ["moment = uniflow.now()"]])

    def _partial(self) -> list[str]:
        name = self._new()
        return [f"{name} = functools.partial(two, {self._data()})", *self._define(f"{name}(more={self._var()})")]

    # --- statements with blocks ---

    def _condition(self) -> str:
        return f"len(str({self._var()})) % {self._chance.choice([1, 2, 3])} == 0"

    def _if(self, depth: int) -> list[str]:
        lines = [f"if {self._condition()}:", *self._block(2, depth + 1)]
        if self._chance.random() < 0.3:
            lines.append(f"    return {self._var()}")
        if self._chance.random() < 0.3:
            lines += [f"elif {self._condition()}:", *self._block(1, depth + 1)]
        if self._chance.random() < 0.5:
            lines += ["else:", *self._block(1, depth + 1)]
        return lines

    def _for(self, depth: int) -> list[str]:
        carried, item = self._var(), self._new()
        lines = [f"for {item} in [{self._var()}, {self._var()}]:", *self._block(2, depth + 1)]
        lines.append(f"    {carried} = one({carried}, {item})")
        if self._chance.random() < 0.4:
            word = self._chance.choice(["break", "continue"])
            lines += [f"    if {self._condition()}:", f"        {word}", f"    two({carried})"]
        return lines

    def _while(self, depth: int) -> list[str]:
        count = self._new()
        lines = [f"{count} = 0", f"while {count} < 2:", f"    {count} += 1", *self._block(2, depth + 1)]
        if self._chance.random() < 0.3:
            lines += ["else:", *self._block(1, depth + 1)]
        return lines

    def _try(self, depth: int) -> list[str]:
        lines = ["try:", *self._block(1, depth + 1)]
        if self._chance.random() < 0.6:
            lines.append(f"    boom({self._data()})")
        lines += ["except ValueError as error:", *self._block(1, depth + 1)]
        if self._chance.random() < 0.3:
            lines += ["else:", *self._block(1, depth + 1)]
        if self._chance.random() < 0.4:
            lines += ["finally:", *self._block(1, depth + 1)]
        return lines

    def _match(self, depth: int) -> list[str]:
        return [
            f"match len(str({self._var()})) % 3:",
            "    case 0:",
            *[f"    {line}" for line in self._block(1, depth + 1)],
            "    case 1 | 2 as rest:",
            *[f"    {line}" for line in self._block(1, depth + 1)],
        ]
