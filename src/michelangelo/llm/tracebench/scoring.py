"""Answers → outcomes: every check of every answer, with what models have to say asked in one batch per engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import orjson

from michelangelo import errors
from michelangelo.llm.scorer import engine as engines_module
from michelangelo.llm.scorer.engine import Completion, Engine, Request
from michelangelo.llm.tracebench import embedding
from michelangelo.llm.tracebench.answers import Answer
from michelangelo.llm.tracebench.checks import similarity
from michelangelo.llm.tracebench.checks.outcome import Check, Outcome, failed
from michelangelo.llm.tracebench.suite import Case, Suite

__all__ = ["check_engines", "judged"]

_Ask = tuple[str, Request]


def check_engines(suite: Suite, engines: Mapping[str, Engine]) -> None:
    """Raises SuiteError if checks name engines that are not given (the embedder has a default) or cannot do it."""
    tasks = {check.engine: "embed" if check.engine == similarity.EMBEDDER else "generate" for check in _checks(suite)}
    for name, task in tasks.items():
        if not name:
            continue
        if name not in engines and name != similarity.EMBEDDER:
            raise errors.SuiteError(f"suite {suite.name} has checks for the engine {name!r}: say which one that is")
        if name in engines and task not in engines[name].tasks:
            raise errors.SuiteError(f"{engines[name].name} cannot {task}, which the engine {name!r} has to do")


def judged(pairs: Sequence[tuple[Case, Answer]], engines: Mapping[str, Engine]) -> list[tuple[Outcome, ...]]:
    """The outcomes of each answer, in order: one per check of its case, or a single `answered` without checks.

    Raises EngineError when an engine is lost.
    """
    asks: dict[bytes, _Ask] = {}
    keys: list[list[list[bytes]]] = []
    for case, answer in pairs:
        per_check = []
        for check in case.checks:
            wanted = [] if answer.error else [(check.engine, r) for r in check.requests(answer, case.question)]
            names = [_key(ask) for ask in wanted]
            asks.update(zip(names, wanted, strict=True))
            per_check.append(names)
        keys.append(per_check)
    replies = _asked(asks, engines)
    made: list[tuple[Outcome, ...]] = []
    for (case, answer), per_check in zip(pairs, keys, strict=True):
        if not case.checks:
            made.append((_answered(answer),))
            continue
        found = [
            _decided(c, answer, [replies[k] for k in names]) for c, names in zip(case.checks, per_check, strict=True)
        ]
        made.append(tuple(found))
    return made


def _checks(suite: Suite) -> list[Check]:
    return [check for case in suite.cases for check in case.checks]


def _answered(answer: Answer) -> Outcome:
    if answer.error:
        return failed("answered", answer.error, error="engine")
    return Outcome("answered", True, 1.0)


def _decided(check: Check, answer: Answer, completions: Sequence[Completion]) -> Outcome:
    if answer.error:
        return failed(check.type, f"there is no answer: {answer.error}", error="engine")
    made = check.decide(answer, completions)
    if not 0 <= made.score <= 1:
        return failed(check.type, f"the score {made.score} is not from 0 to 1")
    return made


def _key(ask: _Ask) -> bytes:
    name, request = ask
    return orjson.dumps([name, request.task, request.prompt, request.messages], option=orjson.OPT_SORT_KEYS)


def _asked(asks: Mapping[bytes, _Ask], engines: Mapping[str, Engine]) -> dict[bytes, Completion]:
    """The same question is asked once."""
    replies: dict[bytes, Completion] = {}
    for name in dict.fromkeys(name for name, _ in asks.values()):
        of_engine = [(key, request) for key, (owner, request) in asks.items() if owner == name]
        keys = {f"q{number}": key for number, (key, _) in enumerate(of_engine)}
        requests = [replace(request, id=f"q{number}") for number, (_, request) in enumerate(of_engine)]
        engine = engines[name] if name in engines else embedding.MiniLm()
        for completion in engines_module.run(engine, requests):
            replies[keys[completion.id]] = completion
        missing = [key for key in keys.values() if key not in replies]
        replies.update((key, Completion(id="", error="the engine gave no completion")) for key in missing)
    return replies
