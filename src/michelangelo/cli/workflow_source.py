"""A workflow file as a pipeline's manifest: its source packed and stored, its parameters' schema, its commit.

The file is imported here, so its errors are the user's before anything is sent. It writes no object.
"""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from typing import Any

from michelangelo import errors
from michelangelo.app import environments, settings
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.cli import workflow_graph
from michelangelo.cli.connection import Connection
from michelangelo.uniflow import parameters, source, source_tree
from michelangelo.uniflow.source_tree import GitState
from michelangelo.uniflow.workflow import Workflow

__all__ = ["WorkflowSource", "actor", "read"]


@dataclass(frozen=True)
class WorkflowSource:
    """A workflow that was found, and its packed source."""

    workflow: Workflow[..., Any]
    file: str
    """Relative to the root of the packed files."""
    digest: str
    blobs: MemoryBlobStore
    """What is to be uploaded: the packed source, and the locks of requirements."""
    git: GitState | None
    environments: dict[str, Any]
    """`manifest.environments`."""

    @property
    def schema(self) -> dict[str, Any]:
        return parameters.schema(self.workflow)

    def manifest(self) -> dict[str, Any]:
        """The fields of a PipelineManifest."""
        return {
            "type": "Uniflow",
            "filePath": self.file,
            "uniflowFunction": self.workflow.fn.__qualname__,
            "uniflowTar": self.digest,
            "sourceDigest": self.digest,
            "parameters": self.schema,
            **({"environments": self.environments} if self.environments else {}),
            **({"graph": drawn} if (drawn := workflow_graph.of_workflow(self.workflow)) else {}),
        }

    def commit(self) -> dict[str, str]:
        """The fields of a CommitInfo; empty outside of a repository."""
        return {"gitRef": self.git.commit, "branch": self.git.branch} if self.git else {}

    def upload(self, link: Connection) -> None:
        for blob in self.blobs.iterate():
            link.content.put_blob(blob.digest, self.blobs.get(blob.digest))


def read(path: str, function: str = "", *, module: str = "", upgrade: bool = False) -> WorkflowSource:
    """Import the file (as `module`), pack what it needs, and lock what its tasks require (`upgrade`: anew). Raises
    SourceError with the user's file, line and source, and RequirementsError with the resolver's words."""
    if not os.path.isfile(path):
        raise errors.SourceError(f"there is no file {path}")
    loaded = source.load_file(path, module)
    workflow = source.find_workflow(loaded, function)
    tree = source_tree.find_source(path, loaded.__name__)
    staging = MemoryBlobStore()
    blob = source_tree.pack_source(tree, staging)
    locks = environments.locked(workflow, tree, settings.load(), staging.put, upgrade=upgrade)
    return WorkflowSource(workflow, tree.main, blob.digest, staging, source_tree.git_state(tree), locks)


def actor() -> dict[str, str]:
    """Who is at the keyboard, as a UserInfo."""
    try:
        return {"name": getpass.getuser()}
    except (OSError, KeyError):
        return {}
