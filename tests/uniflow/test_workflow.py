"""Workflows, and the journaled versions of time and chance."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from michelangelo import uniflow
from michelangelo.errors import WorkflowError
from michelangelo.uniflow import task_context

if TYPE_CHECKING:
    from tests.uniflow.conftest import MemoryRun


@uniflow.task
def double(x: int) -> int:
    return 2 * x


@uniflow.workflow
def inner(x: int) -> int:
    return double(x) + 1


@uniflow.workflow(alias="shown")
def outer(n: int) -> list[int]:
    """Several."""
    return [inner(x) for x in range(n)]


def test_nested_workflow_is_a_scope_of_the_run(run: MemoryRun) -> None:
    assert outer(3) == [1, 3, 5]
    assert run.scopes == ["shown", "inner", "inner", "inner"]
    assert len(run.calls) == 3


def test_workflow_in_a_task_is_a_plain_call(run: MemoryRun) -> None:
    with task_context.entered(task_context.TaskContext()):
        assert outer(2) == [1, 3]
    assert run.scopes == []


def test_workflow_keeps_the_face_of_its_function() -> None:
    assert (outer.name, outer.__qualname__, outer.__doc__, repr(outer).endswith(".outer>")) == (
        "shown",
        "outer",
        "Several.",
        True,
    )
    with pytest.raises(TypeError, match="decorates a function"):
        uniflow.workflow(int)


def test_functions_whose_body_does_not_run_when_called_are_refused() -> None:
    async def late() -> int:
        return 1

    def lazy() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="late is async"):
        uniflow.task(late)
    for function in (late, lazy):
        with pytest.raises(TypeError, match=f"{function.__name__} is async, or has a yield"):
            uniflow.workflow(function)


def test_time_and_chance_come_from_the_run(run: MemoryRun) -> None:
    assert uniflow.now() == datetime(2024, 1, 1, tzinfo=UTC)
    uniflow.sleep(0.5)
    assert run.slept == [0.5]
    assert uniflow.random().random() == random.Random(run.derive("random")).random()
    assert uniflow.uuid() == uniflow.uuid()
    assert uniflow.uuid().version == 4
    run.signals.append({"approved": True})
    assert uniflow.wait_for_signal("go", timeout_seconds=1) == {"approved": True}
    with pytest.raises(TimeoutError):
        uniflow.wait_for_signal("go", timeout_seconds=1)


def test_time_and_chance_are_ordinary_in_a_task(run: MemoryRun) -> None:
    with task_context.entered(task_context.TaskContext()):
        uniflow.sleep(0)
        assert uniflow.now().year > 2024
        assert isinstance(uniflow.uuid(), uuid.UUID)
        assert uniflow.random().random() != uniflow.random().random()
    assert run.slept == []


def test_signals_and_negative_sleep_are_refused() -> None:
    with pytest.raises(WorkflowError, match="in a workflow only"):
        uniflow.wait_for_signal("go")
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="must be 0 or more"):
            uniflow.sleep(wrong)
