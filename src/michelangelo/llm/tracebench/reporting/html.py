"""A comparison as one HTML file that needs no network: verdict, measures, drift, and answers side by side with filters.

Everything that came from a model or a suite is escaped by the template, and bounded.
"""

from __future__ import annotations

from typing import Any, Final

import jinja2

from michelangelo.llm.tracebench.comparison import Change, Comparison
from michelangelo.llm.tracebench.recording import Row
from michelangelo.llm.tracebench.reporting import diffs, tables

__all__ = ["MAX_CASES", "render"]

MAX_CASES: Final = 300
_CHARACTERS: Final = 2000


def render(made: Comparison) -> str:
    """The worst cases first, MAX_CASES at most."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("michelangelo.llm.tracebench.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    flaky = {one.case for one in made.flaky}
    cases = [_case(change, flaky) for change in made.changes[:MAX_CASES]]
    return environment.get_template("report.html.jinja").render(
        made=made,
        measure_titles=[title.capitalize() for title in tables.MEASURE_TITLES],
        measures=tables.measure_rows(made),
        drift_titles=[title.capitalize() for title in tables.DRIFT_TITLES],
        drift=tables.drift_rows(made),
        sentences=[*tables.noise_sentences(made), *tables.left_out(made)],
        cases=cases,
        num_hidden=len(made.changes) - len(cases),
        slices=sorted({name for change in made.changes[:MAX_CASES] for name in change.pair.case.slices}),
        flaky=made.flaky[:MAX_CASES],
        bars=_bars(made),
    )


def _case(change: Change, flaky: set[str]) -> dict[str, Any]:
    pair = change.pair
    a, b = pair.a[0], pair.b[0]
    if change.kind == "worse":
        # The answers to show are those that differ in what counts.
        a = next((row for row in pair.a if row.passed), a)
        b = next((row for row in pair.b if not row.passed), b)
    left, right = diffs.words(a.answer.text, b.answer.text)
    return {
        "id": pair.case.id,
        "kind": change.kind,
        "slices": pair.case.slices,
        "question": pair.case.question[:_CHARACTERS],
        "is_flaky": pair.case.id in flaky,
        "score": tables.points(change.score_drop),
        "sides": [_side("A", left, a, pair.a), _side("B", right, b, pair.b)],
    }


def _side(name: str, pieces: list[diffs.Piece], row: Row, rows: tuple[Row, ...]) -> dict[str, Any]:
    return {
        "name": name,
        "pieces": pieces,
        "error": row.answer.error[:_CHARACTERS],
        "passes": sum(one.passed for one in rows),
        "repeats": len(rows),
        "outcomes": row.outcomes,
        "calls": [f"{call['name']}({call['arguments']})"[:_CHARACTERS] for call in row.answer.tool_calls],
    }


def _bars(made: Comparison) -> list[dict[str, Any]]:
    """Drops with their bounds, on an axis that holds them all; positions in percent."""
    shown = [measure for measure in made.measures if measure.num_cases][:40]
    reach = max(
        [
            0.05,
            *(abs(m.drop) for m in shown),
            *(min(1.0, m.worst_drop) for m in shown),
            *(abs(m.low) for m in shown if m.low == m.low),
        ]
    )

    def place(value: float) -> float:
        return round(50 + 50 * max(-1.0, min(1.0, value / reach)), 2)

    return [
        {
            "name": measure.name,
            "state": measure.state,
            "low": place(measure.low if measure.low == measure.low else measure.drop),
            "high": place(measure.worst_drop),
            "drop": place(measure.drop),
            "tolerance": place(made.settings.slice_tolerance if measure.slice else made.settings.tolerance),
        }
        for measure in shown
    ]
