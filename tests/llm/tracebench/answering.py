"""What the tests of Trace-bench share: engines that answer by a table or by a rate, and suites to ask them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from michelangelo.llm.scorer.engine import Completion, Request, Task, Timing
from michelangelo.llm.tracebench import recorder, suite
from michelangelo.llm.tracebench.recorder import Options
from michelangelo.llm.tracebench.recording import Recording
from michelangelo.llm.tracebench.suite import Suite

NOW = "2026-11-01T12:00:00Z"


class Answering:
    """A real engine whose completions a function makes."""

    def __init__(self, answer: Callable[[Request], Completion], name: str = "answering", embeds: bool = False) -> None:
        self._answer = answer
        self._waiting: list[Request] = []
        self.name = name
        self.tasks: frozenset[Task] = frozenset({"embed"}) if embeds else frozenset({"generate"})
        self.capacity = 32
        self.asked: list[Request] = []

    def submit(self, request: Request) -> None:
        self._waiting.append(request)
        self.asked.append(request)

    def poll(self, timeout: float | None = None) -> Sequence[Completion]:
        taken, self._waiting = self._waiting, []
        # The order of completions is not that of requests.
        return [self._answer(request) for request in reversed(taken)]

    def cancel(self, request_id: str) -> None:
        self._waiting = [request for request in self._waiting if request.id != request_id]

    def close(self) -> None:
        self._waiting.clear()


def saying(text: str | Callable[[str], str], name: str = "saying") -> Answering:
    """Always the same text, or one by the prompt."""

    def answer(request: Request) -> Completion:
        said = text if isinstance(text, str) else text(request.prompt or "")
        return Completion(id=request.id, text=said, output_tokens=3, timing=Timing(0.0, 0.1, 0.5))

    return Answering(answer, name)


def by_rate(rate: float | Callable[[str], float], seed: int, name: str = "by rate") -> Answering:
    """Says `yes` with a probability, which may depend on the prompt, and else `no`."""
    draw = random.Random(seed)

    def answer(request: Request) -> Completion:
        chance = rate(request.prompt or "") if callable(rate) else rate
        return Completion(id=request.id, text="yes" if draw.random() < chance else "no", timing=Timing(0.0, 0.1, 0.5))

    return Answering(answer, name)


def yes_suite(number: int, *, repeats: int = 1, slices: int = 0, checks: Sequence[Any] = ({"exact": "yes"},)) -> Suite:
    """So many questions whose right answer is yes."""
    cases = [
        {"id": f"case-{i}", "prompt": f"question {i}", "slices": [f"slice-{i % slices}"] if slices else []}
        for i in range(number)
    ]
    defaults: Mapping[str, Any] = {"repeats": repeats, "checks": list(checks)}
    return suite.from_document({"name": "yes", "defaults": defaults, "cases": cases})


def recorded(asked: Suite, engine: Answering, **options: Any) -> Recording:
    """The engine's recording of a suite."""
    return recorder.record(asked, engine, Options(**options), NOW)
