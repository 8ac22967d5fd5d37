"""The rule for one ended attempt: two budgets that are kept apart, and what is never tried again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo.engine import steps
from michelangelo.engine.journal import Entry, EntryState, StepType
from michelangelo.engine.steps import Policy
from michelangelo.executors.base import AttemptState
from michelangelo.uniflow.retry import Retry

_VALUE_ERROR: dict[str, Any] = {"type": "builtins.ValueError", "types": ["builtins.ValueError", "builtins.Exception"]}


def _earlier(*states: EntryState) -> list[Entry]:
    return [
        Entry("step", number, StepType.TASK, "task", "print", state=state)
        for number, state in enumerate(states, start=1)
    ]


@given(st.lists(st.sampled_from([EntryState.FAILED, EntryState.LOST]), max_size=8), st.integers(0, 4))
def test_failures_and_losses_have_budgets_of_their_own(states: list[EntryState], retries: int) -> None:
    policy = Policy(retries=Retry(attempts=retries), losses=3)
    failed = steps.judge(policy, _earlier(*states), AttemptState.FAILED, _VALUE_ERROR)
    assert failed.final == (states.count(EntryState.FAILED) >= retries)
    lost = steps.judge(policy, _earlier(*states), AttemptState.LOST)
    assert lost.final == (states.count(EntryState.LOST) >= 2)


@pytest.mark.parametrize("outcome", [AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.OUT_OF_MEMORY])
def test_what_the_users_code_did_is_a_failure(outcome: AttemptState) -> None:
    verdict = steps.judge(Policy(retries=Retry(attempts=1)), [], outcome)
    assert (verdict.state, verdict.final) == (EntryState.FAILED, False)


def test_failures_that_the_policy_does_not_name_are_final() -> None:
    policy = Policy(retries=Retry(attempts=5, on=(KeyError,)))
    assert steps.judge(policy, [], AttemptState.FAILED, _VALUE_ERROR).final
    policy = Policy(retries=Retry(attempts=5, on=("TaskTimeoutError",)))
    assert not steps.judge(policy, [], AttemptState.TIMED_OUT).final


def test_loss_of_a_step_that_is_not_idempotent_is_unknown() -> None:
    verdict = steps.judge(Policy(idempotent=False), [], AttemptState.LOST)
    assert (verdict.state, verdict.final) == (EntryState.UNKNOWN, False)


def test_delays_grow_and_are_the_same_again() -> None:
    policy = Policy(retries=Retry(attempts=9, backoff_seconds=1.0, factor=2.0, max_backoff_seconds=4.0))
    delays = [
        steps.judge(policy, _earlier(*[EntryState.FAILED] * number), AttemptState.FAILED, _VALUE_ERROR, seed="s")
        for number in range(4)
    ]
    again = [
        steps.judge(policy, _earlier(*[EntryState.FAILED] * number), AttemptState.FAILED, _VALUE_ERROR, seed="s")
        for number in range(4)
    ]
    assert delays == again
    assert 0.9 <= delays[0].delay_seconds <= 1.0
    assert 3.6 <= delays[3].delay_seconds <= 4.0
