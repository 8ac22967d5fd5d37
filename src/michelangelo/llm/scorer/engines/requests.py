"""What no engine can serve, said before any of them tries: one sentence per row, the same from every engine.

What only some engines cannot do is theirs to say.
"""

from __future__ import annotations

from collections.abc import Iterator

from michelangelo.llm.scorer.engine import Completion, Request, Sampling, Task, Timing

__all__ = ["failed", "problem"]


def problem(request: Request, tasks: frozenset[Task]) -> str | None:
    """Why this request can never be served by an engine with these tasks; None: nothing is wrong with it."""
    return "; ".join(_problems(request, tasks)) or None


def failed(request: Request, error: str, *, submitted: float, finished: float) -> Completion:
    """The row's completion. Times are of the engine's clock, in seconds."""
    return Completion(request.id, finish_reason="error", error=error, timing=Timing(submitted, None, finished))


def _problems(request: Request, tasks: frozenset[Task]) -> Iterator[str]:
    given = [name for name in ("prompt", "messages", "token_ids") if getattr(request, name) is not None]
    if len(given) != 1:
        yield f"a request wants exactly one of prompt, messages and token_ids, and has {' and '.join(given) or 'none'}"
    if request.task not in tasks:
        yield f"this engine cannot do the task {request.task}: it can do {', '.join(sorted(tasks))}"
    if request.task == "choices" and not (request.choices and all(request.choices)):
        yield "the task choices wants at least one choice, and none of them empty"
    if request.messages is not None:
        if not request.messages:
            yield "messages is empty: give at least one message"
        for number, message in enumerate(request.messages):
            if not isinstance(message.get("role"), str):
                yield f"messages.{number} has no role: give it one, such as user"
    yield from _sampling_problems(request.sampling)


def _sampling_problems(sampling: Sampling) -> Iterator[str]:
    if sampling.max_tokens < 1:
        yield f"max_tokens is {sampling.max_tokens} and must be at least 1"
    if not 0.0 <= sampling.temperature < float("inf"):
        yield f"temperature is {sampling.temperature} and must be 0 or more"
    if not 0.0 < sampling.top_p <= 1.0:
        yield f"top_p is {sampling.top_p} and must be above 0 and at most 1"
    if sampling.top_k < 0:
        yield f"top_k is {sampling.top_k} and must be 0 (all) or more"
    if sampling.logprobs is not None and sampling.logprobs < 0:
        yield f"logprobs is {sampling.logprobs} and must be 0 or more"
    if not all(sampling.stop):
        yield "a stop text is empty"
