"""An evaluation as a table of text, as JSON, and as one HTML file with its figures inside. It computes nothing anew.

Everything in the HTML is escaped, and it loads nothing from anywhere.
"""

from __future__ import annotations

import contextlib
import html
import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.contexteval.evaluation import measuring, plots
from michelangelo.llm.contexteval.evaluation.evaluating import Evaluation

__all__ = ["TITLES", "check", "rows", "sentences", "to_dict", "to_html", "write"]

TITLES: Final[tuple[str, ...]] = ("MEASURE", "GATE", "95 % INTERVAL", "COSINE", "WHAT")
_SUFFIXES: Final = (".html", ".json")
_SHOWN: Final = 40
_STYLE: Final = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}figure{display:inline-block;margin:0 1em 1em 0}"
    ".kept{color:#176b2c}.broken{color:#a40000}.unclear{color:#8a5a00}svg{max-width:100%;height:auto}"
)


def rows(made: Evaluation) -> list[list[str]]:
    """One per measure."""
    found = []
    for name, what in measuring.NAMES.items():
        low, high = made.measures.intervals[name]
        cosine = _share(made.cosine.values[name]) if made.cosine is not None else "–"
        found.append([name, _share(made.measures.values[name]), f"{_share(low)} … {_share(high)}", cosine, what])
    return found


def sentences(made: Evaluation) -> list[str]:
    """What the numbers come to."""
    promise, (wrong, total) = made.gate.promise, made.measures.false_answers
    low, high = made.measures.bounds
    counts = ", ".join(f"{count} {label}" for label, count in made.measures.questions.items())
    said = [
        f"{len(made.asked)} questions that the gate has not seen ({counts}); {made.seen} seen ones left out."
        if made.seen
        else f"{len(made.asked)} questions ({counts}).",
        f"Promised: a false-answer rate among the {_RATES[promise.rate]} of at most {promise.risk * 100:g} % "
        f"({_GUARANTEES[promise.guarantee].format(promise.confidence)}), fitted with {promise.questions} questions. "
        f"Measured: {wrong} of {total} unanswerable questions answered (95 % interval {_share(low)} … {_share(high)}): "
        f"{made.verdict}.",
    ]
    if made.cosine is not None and made.cosine.values["coverage_answerable"] > 0:
        gain = made.measures.values["coverage_answerable"] / made.cosine.values["coverage_answerable"]
        said.append(f"It answers {gain:.2f} times as many answerable questions as a cosine cut-off with this promise.")
    faith = made.faithfulness
    said.append(
        f"{faith.answers} answers with {faith.claims} claims: {faith.supported} supported, {faith.cited} cited; "
        f"{faith.exact} of {faith.citations} citations are exactly what stands there; {faith.with_quote} of "
        f"{faith.answerable} answered answerable questions cite the labelled quote."
    )
    if made.probes:
        outcomes = Counter(one.outcome for one in made.probes)
        counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        right = sum(one.is_right for one in made.probes)
        said.append(f"One fact changed: {right} of {len(made.probes)} probes right ({counted}).")
    if (again := made.resampled) is not None:
        said.append(
            f"{again.repetitions} other splits: held-out rate within the promise in {_share(again.kept)}, coverage "
            f"{_share(float(again.coverages.mean()))} against {_share(float(again.baselines.mean()))} by cosine."
        )
    return said + [f"Warning: {warning}." for warning in made.warnings]


def to_dict(made: Evaluation) -> dict[str, Any]:
    """For JSON; what could not be measured is null."""
    again = made.resampled
    return {
        "gate": made.gate.name,
        "corpus_digest": made.corpus_digest,
        "embedder": made.gate.embedder,
        "promise": asdict(made.gate.promise),
        "verdict": made.verdict,
        "questions": dict(made.measures.questions),
        "seen_and_left_out": made.seen,
        "measures": _measures(made.measures),
        "cosine": _measures(made.cosine) if made.cosine is not None else None,
        "aurc": {
            "gate": made.measures.curve.aurc,
            "least_possible": made.measures.curve.best_aurc,
            "random": made.measures.curve.random_aurc,
        },
        "curve": {
            "coverage": made.measures.curve.coverage.tolist(),
            "risk": made.measures.curve.risk.tolist(),
            "threshold": made.measures.curve.thresholds.tolist(),
        },
        "reliability": [asdict(one) for one in made.measures.bins],
        "faithfulness": asdict(made.faithfulness),
        "probes": [
            {
                "id": one.probe.question.id,
                "question": one.probe.question.text,
                "kind": one.probe.kind,
                "old": one.probe.old,
                "new": one.probe.new,
                "documents": list(one.probe.documents),
                "outcome": one.outcome,
                "answer": one.text,
            }
            for one in made.probes
        ],
        "resampled": None
        if again is None
        else {
            "repetitions": again.repetitions,
            "refused": again.refused,
            "kept": again.kept,
            "mean_rate": float(again.rates.mean()),
            "mean_coverage": float(again.coverages.mean()),
            "mean_cosine_coverage": float(again.baselines.mean()),
            "gain": again.gain if math.isfinite(again.gain) else None,
        },
        "per_question": [
            {
                "id": one.question.id,
                "question": one.question.text,
                "label": one.question.label,
                "score": float(score),
                "answered": bool(answered),
                "right_passage": one.is_right,
            }
            for one, score, answered in zip(made.asked, made.table.scores, made.table.is_answered, strict=True)
        ],
        "warnings": list(made.warnings),
    }


def to_html(made: Evaluation) -> str:
    """One file."""
    figures = [
        ("Risk over coverage", plots.risk_coverage(made.measures.curve, (made.cosine or made.measures).curve)),
        ("Scores by label", plots.scores(made.table, made.gate.threshold)),
        ("Reliability", plots.reliability(made.measures.bins)),
    ]
    shown = "".join(f"<figure><figcaption>{_e(title)}</figcaption>{svg}</figure>" for title, svg in figures)
    weights = sorted(made.gate.weights, key=lambda one: -one.weight)
    false = [
        (one.question.text, score)
        for one, score, answered in zip(made.asked, made.table.scores, made.table.is_answered, strict=True)
        if answered and not one.question.is_answerable
    ]
    parts = [
        f"<h1>Gate {_e(made.gate.name)}</h1>",
        f'<p class="{made.verdict}">The promise is <b>{made.verdict}</b>.</p>',
        "".join(f"<p>{_e(sentence)}</p>" for sentence in sentences(made)),
        _table(TITLES, rows(made)),
        shown,
        "<h2>Weights</h2>",
        _table(("FEATURE", "WEIGHT"), [[one.feature, f"{one.weight:.3f}"] for one in weights if one.weight > 0]),
        "<h2>False answers</h2>",
        _table(("QUESTION", "SCORE"), [[text, f"{score:.3f}"] for text, score in false[:_SHOWN]]) or "<p>None.</p>",
        "<h2>One fact changed</h2>",
        _table(
            ("KIND", "QUESTION", "WAS", "IS", "OUTCOME", "ANSWER"),
            [
                [one.probe.kind, one.probe.question.text, one.probe.old, one.probe.new, one.outcome, one.text[:300]]
                for one in made.probes[:_SHOWN]
            ],
        )
        or "<p>No probe.</p>",
        "<h2>Claims and citations that are wrong</h2>",
        _table(("PROBLEM",), [[problem] for problem in made.faithfulness.problems[:_SHOWN]]) or "<p>None.</p>",
    ]
    head = f'<meta charset="utf-8"><title>Gate {_e(made.gate.name)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def check(path: str | Path) -> None:
    """Raises CorpusError for a name that says no format, before the work is done."""
    if Path(path).suffix not in _SUFFIXES:
        raise errors.CorpusError(f"{path}: a report is a file that ends with {' or '.join(_SUFFIXES)}")


def write(made: Evaluation, path: str | Path) -> None:
    """HTML or JSON by the name; whole or not at all. Raises CorpusError where it cannot be written."""
    check(path)
    path = Path(path)
    text = to_html(made) if path.suffix == ".html" else json.dumps(to_dict(made), indent=1, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(unfinished, 0o644)
            os.replace(unfinished, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise
    except OSError as e:
        raise errors.CorpusError(f"the report cannot be written to {path}: {e.strerror or e}") from e


_RATES: Final = {"unanswerable": "unanswerable questions", "answered": "answers given"}
_GUARANTEES: Final = {"confidence": "with {:.0%} confidence", "mean": "on average"}


def _measures(found: measuring.Measures) -> dict[str, Any]:
    return {
        name: {
            "value": value if math.isfinite(value) else None,
            "low": found.intervals[name][0],
            "high": found.intervals[name][1],
        }
        for name, value in found.values.items()
    }


def _share(value: float) -> str:
    return f"{value * 100:.1f} %" if math.isfinite(value) else "–"


def _table(titles: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    if not body:
        return ""
    head = "".join(f"<th>{_e(title)}</th>" for title in titles)
    lines = "".join("<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _e(text: object) -> str:
    return html.escape(str(text))
