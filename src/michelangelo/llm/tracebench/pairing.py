"""Which cases of two recordings can be compared: those that ask and judge the same. The others are named."""

from __future__ import annotations

from dataclasses import dataclass

from michelangelo import errors
from michelangelo.llm.tracebench.recording import Recording, Row
from michelangelo.llm.tracebench.suite import Case

__all__ = ["Pair", "Pairing", "pair"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One case, as both answered it. `num_repeats` of each are compared, the first ones; the rest tells about noise."""

    case: Case
    a: tuple[Row, ...]
    b: tuple[Row, ...]

    @property
    def num_repeats(self) -> int:
        return min(len(self.a), len(self.b))


@dataclass(frozen=True, slots=True)
class Pairing:
    """The pairs in the order of A, and the ids of what is left out, by why."""

    pairs: tuple[Pair, ...]
    only_in_a: tuple[str, ...] = ()
    only_in_b: tuple[str, ...] = ()
    asked_otherwise: tuple[str, ...] = ()
    judged_otherwise: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    """In both suites, and one of the recordings has no row for it."""

    @property
    def num_left_out(self) -> int:
        parts = (self.only_in_a, self.only_in_b, self.asked_otherwise, self.judged_otherwise, self.unanswered)
        return sum(map(len, parts))


def pair(a: Recording, b: Recording) -> Pairing:
    """Raises SuiteError when nothing can be compared, and says why."""
    cases_b, rows_a, rows_b = {case.id: case for case in b.suite.cases}, a.by_case(), b.by_case()
    made, only_in_a, asked, judged, unanswered = [], [], [], [], []
    for case in a.suite.cases:
        other = cases_b.get(case.id)
        if other is None:
            only_in_a.append(case.id)
        elif other.input_digest != case.input_digest:
            asked.append(case.id)
        elif other.checks_digest != case.checks_digest:
            judged.append(case.id)
        elif case.id not in rows_a or case.id not in rows_b:
            unanswered.append(case.id)
        else:
            made.append(Pair(other, tuple(rows_a[case.id]), tuple(rows_b[case.id])))
    ids_a = {case.id for case in a.suite.cases}
    only_in_b = [case.id for case in b.suite.cases if case.id not in ids_a]
    if not made:
        advice = (
            "judge one of them anew with the other's suite (record --rescore)" if judged else "record the same suite"
        )
        raise errors.SuiteError(
            f"{a.header.reference} and {b.header.reference} have no case in common that can be compared: "
            f"{len(only_in_a)} only in A, {len(only_in_b)} only in B, {len(asked)} asked otherwise, "
            f"{len(judged)} judged otherwise, {len(unanswered)} without an answer: {advice}"
        )
    return Pairing(tuple(made), tuple(only_in_a), tuple(only_in_b), tuple(asked), tuple(judged), tuple(unanswered))
