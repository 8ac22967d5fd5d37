"""A comparison as a comment of a pull request: the verdict first, the worst cases folded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from michelangelo.llm.tracebench.comparison import Change, Comparison
from michelangelo.llm.tracebench.reporting import tables

__all__ = ["render"]

_MARKS: Final = {"pass": "✅", "regression": "❌", "inconclusive": "❔"}
_CASES: Final = 10
_CHARACTERS: Final = 300
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~!&@])")


def render(made: Comparison) -> str:
    """GitHub's Markdown. What models wrote is escaped and cut."""
    lines = [
        f"## {_MARKS[made.state]} Trace-bench: {made.state}",
        "",
        f"{_escaped(made.b.reference)} ({_escaped(made.b.engine)}) against {_escaped(made.a.reference)} "
        f"({_escaped(made.a.engine)}), {len(made.pairing.pairs):,} cases.",
        "",
        *(f"- {_escaped(reason)}" for reason in made.reasons),
        "",
        *_table(tables.MEASURE_TITLES, tables.measure_rows(made)),
        "",
        *(_escaped(sentence) for sentence in (*tables.noise_sentences(made), *tables.left_out(made))),
        "",
        *_details("Drift", _table(tables.DRIFT_TITLES, tables.drift_rows(made))),
    ]
    worse = [change for change in made.changes if change.kind == "worse"]
    if worse:
        title = f"{len(worse)} cases became worse" + (f", the first {_CASES}" if len(worse) > _CASES else "")
        lines += _details(title, [line for change in worse[:_CASES] for line in _case(change)])
    return "\n".join(lines) + "\n"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(title.capitalize() for title in titles) + " |",
        "|" + " --- |" * len(titles),
        *("| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows),
    ]


def _details(title: str, lines: Sequence[str]) -> list[str]:
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>", ""]


def _case(change: Change) -> list[str]:
    failed = [one for row in change.pair.b if not row.passed for one in row.outcomes if not one.passed]
    return [
        f"- **{_escaped(change.pair.case.id)}**: {_cut(change.pair.case.question)}",
        f"  - A: {_cut(change.pair.a[0].answer.text)}",
        f"  - B: {_cut(change.pair.b[0].answer.text or change.pair.b[0].answer.error)}",
        *(f"  - {one.type}: {_cut(one.detail)}" for one in failed[:1]),
    ]


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return _escaped(flat[:_CHARACTERS] + (" …" if len(flat) > _CHARACTERS else ""))


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
