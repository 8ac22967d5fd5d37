"""Ask an engine a suite, judge what comes back, and make a recording of it; or judge recorded answers anew.

A case that the engine fails is a failed case with the engine's words, never a missing one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import jinja2
import jinja2.sandbox

from michelangelo import errors
from michelangelo.llm.scorer import engine as engines_module
from michelangelo.llm.scorer.engine import Engine, Request, Sampling
from michelangelo.llm.tracebench import answers, embedding, recording, scoring
from michelangelo.llm.tracebench.answers import Answer
from michelangelo.llm.tracebench.checks import similarity
from michelangelo.llm.tracebench.recording import Header, Recording
from michelangelo.llm.tracebench.suite import Case, Suite

__all__ = ["Options", "ask", "from_answers", "record", "requests_of", "rescored"]

_SEPARATOR: Final = "\x1f"


@dataclass(frozen=True, slots=True)
class Options:
    """What belongs to the version and not to the suite. system: the system prompt. template: Jinja, with `prompt`,
    `id` and `vars` of the case. repeats: instead of the suite's; 0: as the suite says. sampling: beats the cases'.
    embeds: keep an embedding of each answer, for drift. engines: judges and embedder by name."""

    name: str = "main"
    system: str = ""
    template: str = ""
    repeats: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    embeds: bool = False
    engines: Mapping[str, Engine] = field(default_factory=dict)


def record(
    suite: Suite, engine: Engine, options: Options, now: str, told: Callable[[int], None] = lambda _: None
) -> Recording:
    """Ask and judge. now: RFC 3339. told: called with the number of answers so far.

    Raises SuiteError before anything is asked, EngineError when an engine is lost.
    """
    if "generate" not in engine.tasks:
        raise errors.SuiteError(f"{engine.name} cannot generate text: choose another engine")
    scoring.check_engines(suite, options.engines)
    made = ask(suite, engine, options, told)
    return from_answers(suite, made, options, Header(options.name, engine.name, now, suite.name, suite.digest, 0))


def from_answers(suite: Suite, given: Sequence[Answer], options: Options, header: Header) -> Recording:
    """Judge answers, wherever they come from; `header` says where. Raises SuiteError."""
    scoring.check_engines(suite, options.engines)
    cases = {case.id: case for case in suite.cases}
    if options.embeds:
        given = _embedded(given, options.engines.get(similarity.EMBEDDER) or embedding.MiniLm())
    order = {case.id: number for number, case in enumerate(suite.cases)}
    ordered = sorted(given, key=lambda a: (order[a.case], a.repeat))
    outcomes = scoring.judged([(cases[a.case], a) for a in ordered], options.engines)
    rows = tuple(recording.row_of(a, o) for a, o in zip(ordered, outcomes, strict=True))
    settings = {"system": options.system, "template": options.template, "sampling": dict(options.sampling)}
    kept = {name: value for name, value in settings.items() if value}
    return Recording(replace(header, num_rows=len(rows), settings={**kept, **header.settings}), suite, rows)


def rescored(old: Recording, suite: Suite, options: Options, now: str) -> Recording:
    """The same answers, judged by a suite that asks the same: no engine but judges is run.

    Cases that the suite asks otherwise, or has no more, are left out, and noted. Raises SuiteError if none is left.
    """
    digests = {case.id: case.input_digest for case in suite.cases}
    same = {case.id for case in old.suite.cases if digests.get(case.id) == case.input_digest}
    if not same:
        raise errors.SuiteError(
            f"suite {suite.name} asks nothing that {old.header.reference} has answers for: record it"
        )
    given = [row.answer for row in old.rows if row.answer.case in same]
    notes = list(old.header.notes)
    if missing := [case.id for case in suite.cases if case.id not in same]:
        notes.append(f"{len(missing)} cases of the suite have no answer here: {_few(missing)}")
    if dropped := [case.id for case in old.suite.cases if case.id not in same]:
        notes.append(f"{len(dropped)} recorded cases are asked otherwise or no more: {_few(dropped)}")
    header = replace(
        old.header,
        name=options.name,
        recorded_at=now,
        suite_name=suite.name,
        suite_digest=suite.digest,
        source="rescoring",
        parent=old.header.digest,
        notes=tuple(notes),
    )
    return from_answers(suite, given, options, header)


def ask(suite: Suite, engine: Engine, options: Options, told: Callable[[int], None] = lambda _: None) -> list[Answer]:
    """An answer per case and repeat."""
    known = {
        _identity(case.id, repeat): (case.id, repeat)
        for case in suite.cases
        for repeat in range(options.repeats or case.repeats)
    }
    made: dict[str, Answer] = {}
    for completion in engines_module.run(engine, requests_of(suite.cases, options)):
        place = known.get(completion.id)
        if place is None or completion.id in made:
            raise errors.EngineError(f"{engine.name} gave back a request that it does not have: {completion.id!r}")
        made[completion.id] = answers.from_completion(completion, *place)
        told(len(made))
    lost = "the engine gave no completion"
    return [made.get(key) or Answer(*place, error=lost, finish_reason="error") for key, place in known.items()]


def requests_of(cases: Sequence[Case], options: Options) -> Iterator[Request]:
    """A request per case and repeat, in order, made as they are taken. Raises SuiteError for a template that fails."""
    template = _template(options.template)
    for case in cases:
        prompt, messages = case.prompt, case.messages
        if template is not None:
            if prompt is None:
                raise errors.SuiteError(f"case {case.id} has messages, and a template takes a prompt: give it a prompt")
            prompt = _rendered(template, case)
        if options.system:
            turns = messages if messages is not None else ({"role": "user", "content": prompt},)
            prompt, messages = None, ({"role": "system", "content": options.system}, *turns)
        sampling = {**case.sampling, **options.sampling}
        if "stop" in sampling:
            sampling["stop"] = tuple(sampling["stop"])
        for repeat in range(options.repeats or case.repeats):
            one = dict(sampling)
            if one.get("seed") is not None:
                # Repeats are there to differ as the version differs from itself.
                one["seed"] += repeat
            yield Request(
                id=_identity(case.id, repeat),
                prompt=prompt,
                messages=messages,
                sampling=Sampling(**one),
                tools=case.tools,
            )


def _identity(case: str, repeat: int) -> str:
    return f"{case}{_SEPARATOR}{repeat}"


def _template(source: str) -> jinja2.Template | None:
    if not source:
        return None
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as e:
        raise errors.SuiteError(f"the template is malformed: {e}") from e


def _rendered(template: jinja2.Template, case: Case) -> str:
    try:
        return template.render(prompt=case.prompt, id=case.id, vars=dict(case.variables))
    except (jinja2.TemplateError, TypeError, ValueError, OverflowError) as e:
        raise errors.SuiteError(f"the template fails for case {case.id}: {e}") from e


def _embedded(given: Sequence[Answer], engine: Engine) -> list[Answer]:
    texts = {answer.text[:20_000]: "" for answer in given if answer.text and not answer.error}
    names = {f"e{number}": text for number, text in enumerate(texts)}
    requests = [Request(id=name, prompt=text, task="embed") for name, text in names.items()]
    vectors = {names[c.id]: c.embedding for c in engines_module.run(engine, requests) if c.embedding and not c.error}
    return [replace(answer, embedding=vectors.get(answer.text[:20_000])) for answer in given]


def _few(names: Sequence[str], limit: int = 5) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
