"""A recording from a saved trace: answers that somebody else asked for, found for the cases of a suite.

An answer belongs to a case by the id that it names, or else by its question, if no other case asks the same. What
belongs to none, what has no answer in it and which cases were not found is counted, and noted in the recording.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson

from michelangelo import errors
from michelangelo.llm.tracebench import answers, otlp, recorder, spans
from michelangelo.llm.tracebench.answers import Answer
from michelangelo.llm.tracebench.recorder import Options
from michelangelo.llm.tracebench.recording import Header, Recording
from michelangelo.llm.tracebench.spans import Exchange
from michelangelo.llm.tracebench.suite import Suite

__all__ = ["MAX_FILE_BYTES", "read", "record"]

MAX_FILE_BYTES: Final = 1024**3
_TEXT_FIELDS: Final = ("text", "output", "answer", "completion", "response")
_CASE_FIELDS: Final = ("case", "id", "custom_id")
_NUMBERS: Final = ("latency_seconds", "first_token_seconds", "cost_usd", "mean_logprob")
_FEW: Final = 5


def record(suite: Suite, path: Path, options: Options, now: str) -> Recording:
    """The recording, judged. Raises SuiteError if the file is no trace, or none of its answers is to the suite."""
    found, notes = read(path)
    ids = {case.id for case in suite.cases}
    asked = Counter(_folded(case.question) for case in suite.cases)
    by_question = {_folded(case.question): case.id for case in suite.cases if asked[_folded(case.question)] == 1}
    made: list[Answer] = []
    strangers: list[str] = []
    repeats: Counter[str] = Counter()
    for one in found:
        case = one.case if one.case in ids else ""
        if not case and not one.case and one.question is not None:
            case = by_question.get(_folded(one.question), "")
        if not case:
            strangers.append(one.case or one.span)
            continue
        made.append(replace(one.answer, case=case, repeat=repeats[case]))
        repeats[case] += 1
    if strangers:
        notes.append(f"{len(strangers)} answers of the trace belong to no case of the suite: {_few(strangers)}")
    if missing := [case.id for case in suite.cases if not repeats[case.id]]:
        notes.append(f"{len(missing)} cases of the suite are not in the trace: {_few(missing)}")
    if not made:
        raise errors.SuiteError(
            f"{path} has no answer to a case of suite {suite.name}: {'; '.join(notes)}; "
            f"give spans the attribute {spans.CASE_ATTRIBUTES[0]}, or lines an id"
        )
    header = Header(options.name, f"trace {path.name}", now, suite.name, suite.digest, 0, "trace", notes=tuple(notes))
    return recorder.from_answers(suite, made, options, header)


def read(path: Path) -> tuple[list[Exchange], list[str]]:
    """The answers of a file, and notes on what has none. Raises SuiteError."""
    documents, notes = _documents(path)
    if not any(otlp.is_otlp(document) for document in documents):
        return _lines(documents, path, notes)
    all_spans, problems = otlp.spans(documents)
    if problems:
        notes.append(f"{len(problems)} spans are malformed: {problems[0]}")
    inferences = [span for span in all_spans if spans.is_inference(span)]
    found = [spans.exchange(span) for span in inferences]
    if len(inferences) < len(all_spans):
        notes.append(f"{len(all_spans) - len(inferences)} spans are no calls of a model")
    if silent := [one for one in found if one.problem]:
        notes.append(f"{len(silent)} spans have no answer, {silent[0].problem}: {_few([one.span for one in silent])}")
    return [one for one in found if not one.problem], notes


def _documents(path: Path) -> tuple[list[Any], list[str]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise errors.SuiteError(f"{path} has more than {MAX_FILE_BYTES:,} bytes: split the trace")
        data = path.read_bytes()
    except OSError as e:
        raise errors.SuiteError(f"{path} cannot be read: {e.strerror}") from e
    try:
        whole = orjson.loads(data)
        return (whole if isinstance(whole, list) else [whole]), []
    except orjson.JSONDecodeError:
        pass
    made, wrong = [], []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                made.append(orjson.loads(line))
            except orjson.JSONDecodeError as e:
                wrong.append(f"line {number}: {e}")
    if not made:
        raise errors.SuiteError(f"{path} is no trace: neither a JSON document nor JSON lines ({_few(wrong, 1)})")
    return made, [f"{len(wrong)} lines are no JSON: {_few(wrong, 2)}"] if wrong else []


def _lines(documents: Sequence[Any], path: Path, notes: list[str]) -> tuple[list[Exchange], list[str]]:
    """Plain answers: `case` (or id), `text` (or output, …), and what an answer may have besides."""
    made, wrong = [], []
    for number, document in enumerate(documents, start=1):
        try:
            made.append(_line(document, number))
        except (TypeError, ValueError) as e:
            wrong.append(f"answer {number}: {e}")
    if wrong:
        notes.append(f"{len(wrong)} answers cannot be read: {_few(wrong, 2)}")
    if not made:
        raise errors.SuiteError(f"{path} has no answers: {'; '.join(notes) or 'it is empty'}")
    return made, notes


def _line(document: Any, number: int) -> Exchange:
    if not isinstance(document, dict):
        raise TypeError("it is no mapping")
    case = next((str(document[name]) for name in _CASE_FIELDS if document.get(name) is not None), "")
    text = next((document[name] for name in _TEXT_FIELDS if isinstance(document.get(name), str)), None)
    error = document.get("error") or ""
    if text is None and not error and not document.get("tool_calls"):
        raise ValueError(f"it has none of {', '.join(_TEXT_FIELDS)}")
    question = document.get("prompt", document.get("question"))
    fields = {
        "case": "",
        "text": (text or "")[: answers.MAX_CHARACTERS],
        "error": error if isinstance(error, str) else orjson.dumps(error).decode(),
        "finish_reason": document.get("finish_reason") or "stop",
        "prompt_tokens": int(document.get("prompt_tokens") or 0),
        "output_tokens": int(document.get("output_tokens") or 0),
        "tool_calls": document.get("tool_calls") or (),
        "is_cut": len(text or "") > answers.MAX_CHARACTERS,
        **{name: document[name] for name in _NUMBERS if document.get(name) is not None},
    }
    answer = answers.from_document(fields)
    return Exchange(f"answer {number}", case, question if isinstance(question, str) else None, answer, "")


def _folded(text: str) -> str:
    return " ".join(text.split())


def _few(names: Sequence[str], limit: int = _FEW) -> str:
    return ", ".join(names[:limit]) + (" …" if len(names) > limit else "")
