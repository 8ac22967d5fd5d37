"""Random workflow programs from a seed: source code that runs as `python program.py`, and the tasks that it calls.

A program's result depends on its seed alone: not on the order in which its steps end, nor on how often they are
killed. What it does on its way does depend on that order, so a replay that repeats it wrongly meets other calls than
the journal has. Every execution of a task is one line, the attempt that it is of, in the side file that
MICHELANGELO_TEST_SIDE names.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Program", "generate"]

_HEAD = """
import os
import time

from michelangelo import uniflow


def note():
    context = uniflow.task_context.current()
    side = os.environ.get("MICHELANGELO_TEST_SIDE")
    if context is not None and side:
        file = os.open(side, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, (context.attempt_id + "\\n").encode())
        os.close(file)
    return context


@uniflow.task
def add(one, other, nap=0.0):
    note()
    time.sleep(nap)
    return (one + other) % 1009


@uniflow.task(config=uniflow.InProcess())
def light(one):
    note()
    return (one * 3 + 1) % 1009


@uniflow.task
def picky(one, modulus):
    note()
    if one % modulus == 0:
        raise ValueError(f"{one} is a multiple of {modulus}")
    return one % modulus


@uniflow.task(retries=uniflow.Retry(attempts=3, backoff_seconds=0.002, factor=1.0))
def flaky(one):
    context = note()
    if context is not None and context.attempt <= 2:
        raise OSError("not yet")
    return (one + 11) % 1009


@uniflow.task(cache_enabled=True, cache_version="1")
def cached(one):
    note()
    return (one * one) % 1009


@uniflow.task
def known(value):
    note()
    return 1 if value else 0


def twice(total):
    return add(add(total, 1), 1)
"""


@dataclass(frozen=True)
class Program:
    """`source` is a whole file; its workflow is `flow`. It waits for `signals` signals named `go`, in this order."""

    seed: int
    source: str
    signals: Sequence[int]


def generate(seed: int, *, size: int = 7) -> Program:
    """The program of a seed; `size` statements at its top level."""
    writer = _Writer(random.Random(seed))
    nested = [writer.workflow(f"nested_{number}", 2, ()) for number in range(2)]
    main = writer.workflow("flow", size, ("nested_0", "nested_1"))
    tail = '\n\nif __name__ == "__main__":\n    uniflow.main(flow)\n'
    return Program(seed, "\n\n\n".join([_HEAD.strip(), *nested, main]) + tail, tuple(writer.signals))


class _Writer:
    def __init__(self, chance: random.Random) -> None:
        self.signals: list[int] = []
        self._chance = chance
        self._names = 0

    def workflow(self, name: str, size: int, nested: Sequence[str]) -> str:
        lines = ["@uniflow.workflow", f"def {name}(total: int = {self._chance.randrange(100)}) -> int:"]
        for _ in range(size):
            lines += ["    " + line for line in self._statement(nested, depth=0)]
        lines.append("    return total")
        return "\n".join(lines)

    def _statement(self, nested: Sequence[str], depth: int) -> list[str]:
        choices: list[Callable[[], list[str]]] = [
            self._add,
            self._light,
            self._picky,
            self._flaky,
            self._cached,
            self._completed,
            self._first,
            self._map,
            self._chained,
            self._comprehension,
            self._sleep,
            self._chances,
            self._poll,
            self._patience,
            lambda: ["total = twice(total)"],
        ]
        if nested:
            choices += [lambda: [f"total = {self._chance.choice(nested)}(total)"], self._signal]
        if depth < 2:
            choices += [lambda: self._while(nested, depth), lambda: self._if(nested, depth)] * 2
        return self._chance.choice(choices)()

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}_{self._names}"

    def _nap(self) -> str:
        return f"{self._chance.choice([0, 0, 0.002, 0.01, 0.03])}"

    def _add(self) -> list[str]:
        return [f"total = add(total, {self._chance.randrange(50)}, nap={self._nap()})"]

    def _light(self) -> list[str]:
        return ["total = light(total)"]

    def _picky(self) -> list[str]:
        future = self._name("future")
        return [
            f"{future} = picky.submit(total, {self._chance.choice([2, 3])})",
            "try:",
            f"    total += {future}.result()",
            "except ValueError as error:",
            "    total += len(str(error)) % 2",
        ]

    def _flaky(self) -> list[str]:
        return ["total = flaky(total)"]

    def _cached(self) -> list[str]:
        return [f"total += cached(total % {self._chance.choice([2, 3, 5])})"]

    def _completed(self) -> list[str]:
        futures, future = self._name("futures"), self._name("future")
        naps = [self._nap() for _ in range(self._chance.randrange(2, 5))]
        return [
            f"{futures} = [add.submit(total, number, nap) for number, nap in enumerate([{', '.join(naps)}])]",
            f"for {future} in uniflow.as_completed({futures}):",
            f"    total += add({future}.result(), 1)",
            "total %= 1009",
        ]

    def _first(self) -> list[str]:
        done, rest = self._name("done"), self._name("rest")
        naps = [self._nap() for _ in range(3)]
        return [
            f"{done}, {rest} = uniflow.wait([add.submit(total, 1, nap) for nap in ({', '.join(naps)})]"
            ', return_when="FIRST_COMPLETED")',
            f"light({done}[0].result() + len({rest}))",
            f"total += sum(future.result() for future in {done} + {rest})",
        ]

    def _map(self) -> list[str]:
        count = self._chance.randrange(2, 6)
        return [f"total += sum(light.map([total + number for number in range({count})]).result())"]

    def _chained(self) -> list[str]:
        first, second = self._name("first"), self._name("second")
        return [
            f"{first} = add.submit(total, 2, {self._nap()})",
            f"{second} = add.submit({first}, 3)",
            f"total = add.submit({first}, {second}).result()",
        ]

    def _comprehension(self) -> list[str]:
        return [f"total += sum(add(total, number) for number in range({self._chance.randrange(1, 4)}))"]

    def _sleep(self) -> list[str]:
        return [f"uniflow.sleep({self._chance.choice([0.001, 0.005, 0.02])})"]

    def _signal(self) -> list[str]:
        self.signals.append(self._chance.randrange(100))
        return ['total += uniflow.wait_for_signal("go")']

    def _chances(self) -> list[str]:
        return [
            "total += known(str(uniflow.uuid()))",
            "total += known(uniflow.random().random() + 1)",
            "total += known(str(uniflow.now()))",
        ]

    def _poll(self) -> list[str]:
        future = self._name("future")
        return [
            f"{future} = add.submit(total, 1, {self._nap()})",
            f"while not {future}.done():",
            "    uniflow.sleep(0.004)",
            f"total = {future}.result()",
        ]

    def _patience(self) -> list[str]:
        future, done = self._name("future"), self._name("done")
        return [
            f"{future} = add.submit(total, 1, {self._nap()})",
            f"{done} = uniflow.wait([{future}], timeout={self._chance.choice([0.001, 0.01, 1.0])}).done",
            f"light(len({done}))",
            f"total = {future}.result()",
        ]

    def _while(self, nested: Sequence[str], depth: int) -> list[str]:
        counter = self._name("count")
        # A signal in a loop would be waited for several times, but is sent once.
        body = self._statement([], depth + 1)
        rounds = self._chance.randrange(2, 4)
        return [
            f"{counter} = 0",
            f"while {counter} < {rounds}:",
            f"    {counter} += 1",
            *("    " + line for line in body),
        ]

    def _if(self, nested: Sequence[str], depth: int) -> list[str]:
        # Signals are consumed in order, so they stay out of branches.
        yes, no = self._statement([], depth + 1), self._statement([], depth + 1)
        return [
            f"if total % {self._chance.choice([2, 3])}:",
            *("    " + line for line in yes),
            "else:",
            *("    " + line for line in no),
        ]
