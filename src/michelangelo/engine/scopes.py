"""Where in its workflows a run is: the functions in progress, and the identity of each step that is begun.

A step is the scope it is in (nested workflows, by the places of their calls), the call site, and the n-th call there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType

from michelangelo.engine import callsites
from michelangelo.engine.callsites import CallSite

__all__ = ["Scopes"]


@dataclass(slots=True)
class _Scope:
    path: str
    code: CodeType
    counts: dict[str, int]


class Scopes:
    """The stack of workflow functions in progress. Used in the thread of the workflow."""

    def __init__(self) -> None:
        self._stack: list[_Scope] = []

    @contextmanager
    def entered(self, path: str, code: CodeType) -> Iterator[None]:
        """The workflow function `code` runs inside the block; `path` tells its steps from those of its other calls."""
        self._stack.append(_Scope(path, code, {}))
        try:
            yield
        finally:
            self._stack.pop()

    def locate(self) -> tuple[str, CallSite]:
        """The identity of the step that the workflow is beginning, and where that is."""
        scope = self._stack[-1]
        site = callsites.find(scope.code)
        number = scope.counts[site.path] = scope.counts.get(site.path, 0) + 1
        return f"{scope.path}{site.path}#{number}", site

    def site(self) -> CallSite:
        """Where the workflow is now."""
        return callsites.find(self._stack[-1].code)
