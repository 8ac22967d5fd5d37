"""The graph of a workflow, read from its Python code without running it.

`read(path, function)` gives a `Reading`: its `graph()` (nodes and edges, see docs/graph.md), and its `atlas`, which
names the node of any step of a run. Standard library only; `import michelangelo.uniflow` does not load it.
"""

from __future__ import annotations

from michelangelo.uniflow.graph.atlas import Atlas
from michelangelo.uniflow.graph.model import MAX_BYTES, Edge, Graph, Node
from michelangelo.uniflow.graph.reader import Reading, read, workflows

__all__ = ["MAX_BYTES", "Atlas", "Edge", "Graph", "Node", "Reading", "read", "workflows"]
