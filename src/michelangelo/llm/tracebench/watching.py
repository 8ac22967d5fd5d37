"""Watching an endpoint: small samples of a recorded suite, again and again, against what was recorded.

Each look asks a few cases, drawn at random with replacement, and bets on "it got worse" (`statistics.sequential`): the
alarm is false with probability at most `alpha`, however often one looks, and for ever. A fifth of alpha is for the
baseline's own luck: what was recorded is a sample too, and "nothing changed" must cover how far it may be off. Looks
are lines of a file, appended one by one, and a watch goes on where the file ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import orjson
from scipy import special

from michelangelo import errors
from michelangelo.llm.scorer.engine import Engine
from michelangelo.llm.tracebench import recorder, scoring
from michelangelo.llm.tracebench.recorder import Options
from michelangelo.llm.tracebench.recording import Recording
from michelangelo.llm.tracebench.statistics import intervals, sequential
from michelangelo.llm.tracebench.statistics.sequential import Wealth
from michelangelo.llm.tracebench.suite import Suite

__all__ = ["Look", "Plan", "Watch", "allowance", "opened"]

_FORMAT: Final = 1
_BASELINE_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """What may not change within one watch. tolerance: the drop of the pass rate that is no alarm, a share. allowance:
    that, and the baseline's luck. sample: cases per look."""

    baseline: str
    engine: str
    alpha: float
    tolerance: float
    allowance: float
    sample: int
    seed: int

    @property
    def limit(self) -> float:
        """The wealth at which the alarm goes off."""
        return 1 / (self.alpha * (1 - _BASELINE_SHARE))


@dataclass(frozen=True, slots=True)
class Look:
    """One look. cases: asked, some maybe twice. drops: what the baseline passed (a rate) minus passed now (0 or 1).
    errors: answers that are none. evidence: the wealth, of `limit` at an alarm."""

    number: int
    at: str
    cases: tuple[str, ...]
    drops: tuple[float, ...]
    passed: int
    errors: int
    evidence: float
    is_alarm: bool


def allowance(baseline: Recording, alpha: float, tolerance: float) -> float:
    """The mean drop that has to be covered when nothing changed: the tolerance, and how far the recorded pass rate may
    be above the true one, at a fifth of alpha. Repeats make it smaller: they show how much is luck."""
    by_case = list(baseline.by_case().values())
    n = len(by_case)
    rates = np.array([sum(row.passed for row in rows) / len(rows) for rows in by_case])
    risk = alpha * _BASELINE_SHARE
    # A sum of coins of different bias varies less than a binomial of their mean (Hoeffding, 1956).
    luck = float(rates.mean()) - intervals.rate_bounds(float(rates.sum()), n, 1 - 2 * risk)[0]
    if all(len(rows) > 1 for rows in by_case):
        repeats = np.array([len(rows) for rows in by_case])
        # One more unit of variance than was seen: few repeats that agree prove no certainty.
        variance = float((rates * (1 - rates) / (repeats - 1)).sum()) + 1
        luck = min(luck, -float(special.ndtri(risk)) * math.sqrt(variance) / n)
    return min(0.99, tolerance + max(0.0, luck))


class Watch:
    """A watch with its file open and locked: `looks` so far, and `look` for one more."""

    def __init__(self, plan: Plan, file: BinaryIO, looks: list[Look], wealth: Wealth) -> None:
        self.plan = plan
        self.looks = looks
        self._file = file
        self._wealth = wealth

    @property
    def has_alarm(self) -> bool:
        return self._wealth.highest >= self.plan.limit

    def look(self, baseline: Recording, engine: Engine, options: Options, now: str) -> Look:
        """Ask, judge, bet, append. Raises EngineError when the engine is lost: then there was no look."""
        number = len(self.looks) + 1
        rates = {case: sum(row.passed for row in rows) / len(rows) for case, rows in baseline.by_case().items()}
        drawn = _drawn(list(rates), self.plan, number)
        counts = Counter(drawn)
        cases = tuple(replace(case, repeats=counts[case.id]) for case in baseline.suite.cases if case.id in counts)
        asked = Suite(baseline.suite.name, cases, "")
        given = recorder.ask(asked, engine, replace(options, repeats=0))
        by_id = {case.id: case for case in cases}
        outcomes = scoring.judged([(by_id[answer.case], answer) for answer in given], options.engines)
        passed = [all(one.passed for one in found) for found in outcomes]
        drops = [rates[answer.case] - ok for answer, ok in zip(given, passed, strict=True)]
        self._wealth = sequential.look(self._wealth, drops, self.plan.allowance)
        made = Look(
            number=number,
            at=now,
            cases=tuple(answer.case for answer in given),
            drops=tuple(drops),
            passed=sum(passed),
            errors=sum(bool(answer.error) for answer in given),
            evidence=self._wealth.total,
            is_alarm=self.has_alarm,
        )
        self._append(made)
        self.looks.append(made)
        return made

    def _append(self, made: Look) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(orjson.dumps(asdict(made), option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()
        os.fsync(self._file.fileno())


@contextlib.contextmanager
def opened(path: Path, plan: Plan) -> Iterator[Watch]:
    """The watch that the file holds, or a new one. Raises SuiteError if it is another one, damaged, or in use."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as e:
        raise errors.SuiteError(f"{path} cannot be opened: {e.strerror}") from e
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise errors.SuiteError(f"{path} is in use by another watch: wait for it, or choose another --state") from e
        file.seek(0)
        lines = file.read().split(b"\n")
        if lines[-1]:
            # The end of a line is written with it: what has none was cut off, and that look never counted.
            file.truncate(sum(len(line) + 1 for line in lines[:-1]))
        lines = lines[:-1]
        if not lines:
            file.write(orjson.dumps({"format": _FORMAT, "plan": asdict(plan)}, option=orjson.OPT_APPEND_NEWLINE))
            file.flush()
            yield Watch(plan, file, [], sequential.start())
            return
        looks, wealth = _read(path, lines, plan)
        yield Watch(plan, file, looks, wealth)


def _drawn(cases: list[str], plan: Plan, number: int) -> list[str]:
    rng = np.random.default_rng([plan.seed, number])
    return [cases[i] for i in rng.integers(0, len(cases), size=plan.sample)]


def _read(path: Path, lines: list[bytes], plan: Plan) -> tuple[list[Look], Wealth]:
    try:
        header = orjson.loads(lines[0])
        looks = [_look(orjson.loads(line)) for line in lines[1:]]
        if header["format"] != _FORMAT or [look.number for look in looks] != list(range(1, len(looks) + 1)):
            raise ValueError("lines are missing or of another format")
        differing = [name for name, value in asdict(plan).items() if header["plan"][name] != value]
        wealth = sequential.start()
        for look in looks:
            wealth = sequential.look(wealth, look.drops, plan.allowance)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as e:
        raise errors.SuiteError(f"{path} is not the state of a watch: {e}; choose another --state") from e
    if differing:
        raise errors.SuiteError(
            f"{path} belongs to a watch with other values of {', '.join(differing)}: what an alarm promises would not "
            "hold; choose another --state"
        )
    return looks, wealth


def _look(document: Mapping[str, Any]) -> Look:
    fields = dict(document)
    fields["cases"], fields["drops"] = tuple(fields["cases"]), tuple(float(drop) for drop in fields["drops"])
    return Look(**fields)
