"""From a record in the journal to the exception in the workflow."""

from __future__ import annotations

import builtins
import json
from typing import Any

import pytest

from michelangelo import errors
from michelangelo.engine import failures
from michelangelo.executors.base import AttemptState
from michelangelo.worker import failure

_BUILTINS = sorted(
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception
)


class TwoArgumentsError(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def _record(error: BaseException) -> dict[str, Any]:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - any exception may be the users'
        form = failure.from_exception(caught)
    recorded: dict[str, Any] = json.loads(json.dumps(failures.named(AttemptState.FAILED, form, 0.0)))
    return recorded


@pytest.mark.parametrize("name", _BUILTINS)
def test_every_builtin_exception_is_caught_by_its_class(name: str) -> None:
    kind = getattr(builtins, name)
    record = {"class": "UserCodeError", "type": f"builtins.{name}", "types": [f"builtins.{name}"], "message": "broken"}
    error = failures.exception(record, task="train", step="s")
    assert isinstance(error, errors.UserCodeError)
    assert isinstance(error, kind) or kind.__base__ is BaseExceptionGroup or issubclass(kind, BaseExceptionGroup)
    assert str(error) == "broken"


def test_own_exceptions_are_caught_by_their_class() -> None:
    error = failures.exception(_record(TwoArgumentsError("a", "b")), task="train", step="s")
    assert isinstance(error, errors.UserCodeError)
    assert error.cause_type.endswith("TwoArgumentsError")
    assert TwoArgumentsError in type(error).__mro__
    assert str(error) == "a and b"


def test_classes_that_this_process_does_not_have_fall_back_to_the_nearest_base() -> None:
    record = {"class": "UserCodeError", "type": "far.away.Odd", "types": ["far.away.Odd", "builtins.OSError"]}
    assert isinstance(failures.exception(record, task="train", step="s"), OSError)


def test_location_is_the_users() -> None:
    error = failures.exception(_record(ValueError("x")), task="train", step="s")
    assert isinstance(error, errors.UserCodeError)
    assert error.location is not None
    assert error.location.file == __file__
    assert error.location.source == "raise error"


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (AttemptState.TIMED_OUT, errors.TaskTimeoutError),
        (AttemptState.OUT_OF_MEMORY, errors.OutOfMemoryError),
        (AttemptState.KILLED, errors.TaskKilledError),
        (AttemptState.LOST, errors.WorkerLostError),
    ],
)
def test_ends_that_are_not_the_users_have_classes_of_their_own(
    outcome: AttemptState, kind: type[errors.TaskError]
) -> None:
    error = failures.exception(failures.named(outcome, None, 2.0), task="train", step="s")
    assert type(error) is kind
    assert "train" in str(error)
