"""Which node of the workflow's graph a step is an instance of.

The graph is read from the workflow's file when the first step that is not recorded yet begins. A workflow whose source
cannot be read has no graph; its steps name no node, and nothing else changes.
"""

from __future__ import annotations

import os

from michelangelo import errors
from michelangelo.uniflow import graph
from michelangelo.uniflow.workflow import Workflow

__all__ = ["Nodes"]


class Nodes:
    """The nodes of one run's steps. Used in the thread of the workflow."""

    def __init__(self) -> None:
        self._workflow: Workflow[..., object] | None = None
        self._atlas: graph.Atlas | None = None

    def enter(self, workflow: Workflow[..., object]) -> None:
        """The run is of `workflow`."""
        self._workflow, self._atlas = workflow, None

    def of(self, step: str, task: str) -> str:
        """The node of a step; empty where there is no graph."""
        if self._workflow is not None:
            workflow, self._workflow = self._workflow, None
            self._atlas = _read(workflow)
        return self._atlas.node_of(step, task) if self._atlas is not None else ""


def _read(workflow: Workflow[..., object]) -> graph.Atlas | None:
    code = getattr(workflow.fn, "__code__", None)
    if code is None or not os.path.isfile(code.co_filename):
        return None
    module = workflow.fn.__module__
    if module == "__main__" or "." not in module:
        module = ""
    try:
        return graph.read(code.co_filename, code.co_qualname, module=module, line=code.co_firstlineno).atlas
    except (errors.SourceError, RecursionError):
        return None
