"""What every Runner does with a workflow that is called from plain Python, whatever it keeps of the run.

One program asks the resolved Runner for everything, and tells what came of it; it is run with each kind of options.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.app.conftest import Desk

PROGRAM = """
    import json, sys
    from michelangelo import errors, uniflow
    from michelangelo.uniflow import runner

    @uniflow.task
    def half(number: int) -> float:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number / 2

    @uniflow.workflow
    def halves(numbers: list[int]) -> list[float]:
        return half.map(numbers).result()

    @uniflow.workflow
    def lenient(number: int) -> str:
        try:
            half(number)
        except ValueError as error:
            return str(error)
        return "even"

    @uniflow.workflow
    def outer(number: int = 2) -> list[float]:
        return halves([number, number + 2])

    @uniflow.workflow
    def seen() -> bool:
        return runner.current_run() is not None

    def told(workflow, *args, **kwargs):
        options = runner.RunOptions(ephemeral="ephemeral" in sys.argv)
        try:
            return runner.resolve_runner().run(workflow, args, kwargs, options)
        except Exception as error:
            return [isinstance(error, (ValueError, errors.ArgumentsError)), type(error).__mro__[1].__name__, str(error)]

    if __name__ == "__main__":
        found = {
            "result": told(halves, [2, 4]),
            "failure": told(halves, [2, 3]),
            "caught": told(lenient, 5),
            "nested and default": told(outer),
            "missing": told(halves),
            "wrong type": told(outer, number="many"),
            "inside": told(seen),
            "outside": runner.current_run() is not None,
        }
        print(json.dumps(found))
"""


@pytest.fixture(params=["durable", "ephemeral"])
def outcomes(request: pytest.FixtureRequest, desk: Desk) -> dict[str, Any]:
    code, out, err = desk.run(desk.write("program.py", PROGRAM), request.param)
    assert code == 0, err
    if request.param == "ephemeral":
        assert not desk.home.exists()
    found: dict[str, Any] = json.loads(out)
    return found


def test_runner_keeps_its_contract(outcomes: dict[str, Any]) -> None:
    assert outcomes["result"] == [1.0, 2.0]
    assert outcomes["caught"] == "5 is odd"
    assert outcomes["nested and default"] == [1.0, 2.0]
    assert (outcomes["inside"], outcomes["outside"]) == (True, False)
    is_original, _, message = outcomes["failure"]
    assert is_original
    assert "3 is odd" in message
    for name in ("missing", "wrong type"):
        is_refused, _, message = outcomes[name]
        assert is_refused
        assert "number" in message
