"""The graph of a pipeline, a run or a file: as it is stored with the manifest, or read from the packed source.

What a run has done is counted per node of the graph. It draws nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, Final

from michelangelo import errors
from michelangelo.cli.content import Content
from michelangelo.client.client import Object
from michelangelo.uniflow import archive, graph, source_tree
from michelangelo.uniflow.graph import Graph
from michelangelo.uniflow.workflow import Workflow

__all__ = ["NOWHERE", "of_file", "of_manifest", "of_workflow", "states"]

NOWHERE: Final = ""
"""Stands for steps that no node of the graph is named for."""
_MAX_FILES: Final = 10_000
_WORDS: Final = {"Succeeded": "ok", "Cached": "cached", "Running": "running"}
_ORDER: Final = ("ok", "cached", "running", "failed", "killed", "lost", "unknown")


def of_workflow(workflow: Workflow[..., Any]) -> dict[str, Any] | None:
    """The graph of an imported workflow, for its manifest; None where its code cannot be read."""
    code = getattr(workflow.fn, "__code__", None)
    if code is None:
        return None
    module = workflow.fn.__module__
    try:
        read = graph.read(code.co_filename, workflow.fn.__qualname__, module=module, line=code.co_firstlineno)
        return read.graph().to_json()
    except (errors.SourceError, RecursionError):
        # The source was imported, so it can be run, and that counts more than its picture.
        return None


def of_file(path: str, function: str = "") -> Graph:
    """The graph of a workflow file as it is now. Raises SourceError."""
    return graph.read(path, function).graph()


def of_manifest(manifest: Mapping[str, Any], content: Content, what: str) -> Graph:
    """The graph that belongs to a manifest. Raises SourceError where `what` has no source to read it from."""
    stored = manifest.get("graph")
    if isinstance(stored, Mapping):
        return Graph.from_json(stored)
    digest = str(manifest.get("uniflowTar") or manifest.get("sourceDigest") or "")
    file, _, function = str(manifest.get("filePath") or "").partition(":")
    if not digest.startswith("sha256:") or not file:
        raise errors.SourceError(
            f"{what} has no packed source, so there is no graph: register it with `mactl pipeline apply`"
        )
    with tempfile.TemporaryDirectory(prefix="michelangelo-") as folder:
        with content.open_blob(digest) as stream:
            archive.unpack(stream, folder, max_bytes=source_tree.MAX_SOURCE_BYTES, max_files=_MAX_FILES)
        parts = file.removesuffix("/__init__.py").removesuffix(".py").split("/")
        module = ".".join(parts) if len(parts) > 1 else ""
        function = str(manifest.get("uniflowFunction") or function)
        return graph.read(os.path.join(folder, file), function, module=module).graph()


def states(drawn: Graph, task_runs: Iterable[Object]) -> dict[str, dict[str, int]]:
    """How many steps of each node are in which state, its newest attempt counts."""
    newest: dict[str, Object] = {}
    for one in task_runs:
        known = newest.get(one["spec"]["step"])
        if known is None or one["spec"]["attempt"] > known["spec"]["attempt"]:
            newest[one["spec"]["step"]] = one
    found: dict[str, dict[str, int]] = {}
    for one in newest.values():
        state = str((one.get("status") or {}).get("state") or "Running")
        word = _WORDS.get(state, state.lower())
        node = drawn.node(str(one["spec"].get("node") or ""))
        place = node.id if node is not None else NOWHERE
        found.setdefault(place, {}).setdefault(word, 0)
        found[place][word] += 1
    return {
        node: {word: counts[word] for word in sorted(counts, key=lambda one: (*_ORDER, one).index(one))}
        for node, counts in found.items()
    }
