"""Call sites: what tells one call from another, and what does not matter."""

from __future__ import annotations

from collections.abc import Callable

from michelangelo.engine import callsites
from michelangelo.engine.callsites import CallSite
from michelangelo.engine.scopes import Scopes


def _two_on_a_line(find: Callable[[], str]) -> list[str]:
    return [find(), find()]


def _in_a_loop(find: Callable[[], str]) -> list[str]:
    return [find() for _ in range(3)]


def _helper(find: Callable[[], str]) -> str:
    return find()


def _through_a_helper(find: Callable[[], str]) -> list[str]:
    return [
        _helper(find),
        _helper(find),
    ]


def _through_a_lambda(find: Callable[[], str]) -> list[str]:
    calls: list[Callable[[], str]] = [lambda: find(), lambda: find()]
    return [call() for call in calls]


def _sites(function: Callable[[Callable[[], str]], list[str]]) -> list[str]:
    return function(lambda: callsites.find(function.__code__).path)


def test_two_calls_on_one_line_are_two_sites() -> None:
    first, second = _sites(_two_on_a_line)
    assert first != second


def test_one_call_in_a_loop_is_one_site() -> None:
    assert len(set(_sites(_in_a_loop))) == 1


def test_calls_through_a_helper_are_told_apart_by_where_it_was_called() -> None:
    first, second = _sites(_through_a_helper)
    assert first != second
    assert first.startswith("_through_a_helper@2:8>_helper@1:11")


def test_calls_through_lambdas_are_found() -> None:
    first, second = _sites(_through_a_lambda)
    assert "<lambda>" in first
    assert first != second


def test_site_does_not_depend_on_what_stands_above_the_function() -> None:
    text = "def flow(find):\n    return find()\n"
    paths = []
    for above in ("", "# a comment\n\n\n"):
        namespace: dict[str, Callable[[Callable[[], CallSite]], CallSite]] = {}
        exec(compile(above + text, "flow.py", "exec"), namespace)
        flow = namespace["flow"]
        paths.append(flow(lambda flow=flow: callsites.find(flow.__code__)).path)  # type: ignore[misc]  # bound now
    assert paths[0] == paths[1]


def test_location_is_the_users_line() -> None:
    found: list[CallSite] = []

    def flow() -> None:
        found.append(callsites.find(flow.__code__))

    flow()
    assert found[0].file == __file__
    assert "callsites.find(flow.__code__)" in found[0].location().source


def test_scopes_count_the_calls_at_each_place() -> None:
    scopes = Scopes()

    def flow() -> list[str]:
        return [scopes.locate()[0] for _ in range(2)] + [scopes.locate()[0]]

    with scopes.entered("", flow.__code__):
        names = flow()
    assert len(set(names)) == 3
    assert names[0].removesuffix("#1") == names[1].removesuffix("#2")


def test_nested_scopes_begin_to_count_anew() -> None:
    scopes = Scopes()

    def flow() -> str:
        return scopes.locate()[0]

    def outer() -> list[str]:
        found = []
        for number in range(2):
            with scopes.entered(f"call-{number}/", flow.__code__):
                found.append(flow())
        return found

    with scopes.entered("", outer.__code__):
        first, second = outer()
    assert first == second.replace("call-1/", "call-0/")
