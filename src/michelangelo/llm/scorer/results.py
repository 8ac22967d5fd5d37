"""A completion → one line of the output, by the task; and what the report wants to know of it.

The line says nothing of when, where or how fast: the same answers give the same bytes. Times and costs are facts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from michelangelo.llm.scorer import batch_format
from michelangelo.llm.scorer.config import ScoreConfig
from michelangelo.llm.scorer.engine import Completion
from michelangelo.llm.scorer.row_error import RowError
from michelangelo.llm.scorer.templates import Asked

__all__ = ["Result", "failed", "scored"]

Result = tuple[bytes, dict[str, Any]]
"""The line without its end, and the facts: p prompt tokens, o output tokens, c cached, f seconds to the first token,
t seconds in all, u USD, e the error, a whether a choice was right."""


def scored(config: ScoreConfig, row: int, asked: Asked, completion: Completion) -> Result:
    """`row`: its number in the input, from 0."""
    facts = _facts(completion)
    if completion.error is not None or completion.finish_reason in ("error", "cancelled"):
        error = completion.error or "the engine gave it up"
        return failed(config, row, asked, error, facts)
    if asked.batch is not None:
        return _dumped(batch_format.line_of(row, asked.row_id, asked.batch, completion)), facts
    try:
        own = _own(config, asked, completion, facts)
    except RowError as e:
        return failed(config, row, asked, e.message, facts)
    return _dumped(_line(config, row, asked, own, None)), facts


def failed(
    config: ScoreConfig, row: int, asked: Asked | None, error: str, facts: Mapping[str, Any] | None = None
) -> Result:
    """A row that has no answer. `asked` None: it could not be read."""
    error = error.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    known = {"p": 0, "o": 0, **(facts or {}), "e": error[:200]}
    if config.input.format == "openai":
        row_id = asked.row_id if asked is not None else None
        return _dumped(batch_format.failed_line(row, row_id, error)), known
    return _dumped(_line(config, row, asked, {}, error)), known


def _line(
    config: ScoreConfig, row: int, asked: Asked | None, own: Mapping[str, Any], error: str | None
) -> dict[str, Any]:
    line: dict[str, Any] = {"row": row}
    if asked is not None and asked.row_id is not None:
        line["id"] = asked.row_id
    line |= own
    line["error"] = error
    if config.output.keep:
        line["input"] = dict(asked.kept) if asked is not None else {}
    return line


def _own(config: ScoreConfig, asked: Asked, completion: Completion, facts: dict[str, Any]) -> dict[str, Any]:
    """The fields of a task. Raises RowError."""
    used = {"prompt_tokens": completion.prompt_tokens, "output_tokens": completion.output_tokens}
    match config.task:
        case "choices":
            return {**_choice(config, asked, completion, facts), "prompt_tokens": completion.prompt_tokens}
        case "embed":
            if completion.embedding is None:
                raise RowError("the engine gave no embedding")
            return {"embedding": list(completion.embedding), "prompt_tokens": completion.prompt_tokens}
        case "reward":
            if completion.score is None:
                raise RowError("the engine gave no score")
            return {"score": completion.score, "prompt_tokens": completion.prompt_tokens}
        case "judge":
            return {**_judged(config, completion), **used}
    own: dict[str, Any] = {"text": completion.text, "finish_reason": completion.finish_reason, **used}
    if asked.request.sampling.json_schema is not None:
        try:
            own["json"] = json.loads(completion.text)
        except ValueError as e:
            raise RowError(f"the answer is no whole JSON document ({e}); is max_tokens too small?") from e
    if completion.logprobs is not None:
        own["logprobs"] = [
            {"token": one.token, "logprob": one.logprob, "top": [list(pair) for pair in one.top]}
            for one in completion.logprobs
        ]
    if completion.tool_calls:
        own["tool_calls"] = [dict(call) for call in completion.tool_calls]
    return own


def _choice(config: ScoreConfig, asked: Asked, completion: Completion, facts: dict[str, Any]) -> dict[str, Any]:
    sums = completion.choice_logprobs
    if sums is None or len(sums) != len(asked.request.choices):
        raise RowError("the engine gave no log-likelihood for each choice")
    counts = completion.choice_tokens or ()
    values = list(sums)
    if config.choices.per_token:
        if len(counts) != len(sums):
            raise RowError("the engine does not say how many tokens the choices have, and choices.per_token wants it")
        values = [value / max(1, count) for value, count in zip(sums, counts, strict=True)]
    best = max(range(len(values)), key=values.__getitem__)
    own: dict[str, Any] = {
        "choice": best,
        "choice_text": asked.request.choices[best],
        "choice_logprobs": list(sums),
        "choice_tokens": list(counts),
    }
    if asked.answer is not None:
        right = asked.answer == best if isinstance(asked.answer, int) else asked.answer == asked.request.choices[best]
        own["correct"] = right
        facts["a"] = int(right)
    return own


def _judged(config: ScoreConfig, completion: Completion) -> dict[str, Any]:
    judge = config.judge
    try:
        verdict = json.loads(completion.text)
    except ValueError as e:
        raise RowError(f"the judge's answer is no JSON: {e}") from e
    score = verdict.get(judge.score_field) if isinstance(verdict, Mapping) else None
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise RowError(f"the judge's answer has no number {judge.score_field}")
    if not judge.minimum <= score <= judge.maximum:
        raise RowError(
            f"the judge's {judge.score_field} {score} is not between {judge.minimum:g} and {judge.maximum:g}"
        )
    scaled = (score - judge.minimum) / (judge.maximum - judge.minimum)
    return {"score": score, "scaled_score": scaled, "verdict": verdict}


def _facts(completion: Completion) -> dict[str, Any]:
    facts: dict[str, Any] = {"p": completion.prompt_tokens, "o": completion.output_tokens}
    if completion.cached_tokens:
        facts["c"] = completion.cached_tokens
    if completion.timing is not None:
        facts["t"] = round(completion.timing.finished - completion.timing.submitted, 6)
        if completion.timing.first_token is not None:
            facts["f"] = round(completion.timing.first_token - completion.timing.submitted, 6)
    if completion.cost_usd is not None:
        facts["u"] = completion.cost_usd
    return facts


def _dumped(value: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:  # numbers of more than 64 bits, half a surrogate pair
        return json.dumps(value, default=str, separators=(",", ":")).encode()
