"""Every engine that runs here without more than this environment, against one suite; vLLM runs it in tests/engines."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.llm.scorer import conformance, openai_server
from tests.llm.scorer.conformance import Subject

from michelangelo.llm.scorer.engine import Engine
from michelangelo.llm.scorer.engines import opening
from michelangelo.llm.scorer.engines.stub import StubConfig

KINDS = ("stub", "torch", "http over stub", "http in pieces over stub", "http over torch")


@contextlib.contextmanager
def _opened(kind: str, model: Path) -> Iterator[Subject]:
    with contextlib.ExitStack() as stack:
        subject = _subject(kind, model, stack)
        stack.callback(subject.engine.close)
        yield subject


def _subject(kind: str, model: Path, stack: contextlib.ExitStack) -> Subject:
    def local(kind: str) -> Engine:
        if kind == "stub":
            return opening.open_engine(StubConfig())
        return opening.open_engine(opening.parse({"kind": "torch", "model": str(model), "max_sequences": 8}))

    way, _, behind = kind.partition(" over ")
    if not behind:
        return Subject(local(kind), ends_schema=kind != "torch")
    server = stack.enter_context(openai_server.serving(local(behind)))
    fields: dict[str, Any] = {"base_url": server.base_url, "model": behind, "max_concurrency": 8}
    engine = opening.open_engine(opening.parse({"kind": "openai", **fields, "streams": "pieces" in way}))
    return Subject(engine, has_first_token="pieces" in way, ends_schema=behind != "torch")


@pytest.fixture(scope="module", params=KINDS)
def subject(request: pytest.FixtureRequest, model_folder: Path) -> Iterator[Subject]:
    with _opened(request.param, model_folder) as subject:
        yield subject


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_engine(subject: Subject, check: Callable[[Subject], None]) -> None:
    check(subject)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", conformance.CLOSING_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_engine_at_its_end(kind: str, model_folder: Path, check: Callable[[Subject], None]) -> None:
    with _opened(kind, model_folder) as subject:
        check(subject)
