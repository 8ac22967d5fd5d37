"""The state of the source code that something was made from: a part of several kinds."""

from __future__ import annotations

from michelangelo.meta.document import Document

__all__ = ["CommitInfo"]


class CommitInfo(Document):
    """A commit of a git repository."""

    git_ref: str | None = None
    """Hash of the commit."""
    branch: str | None = None
    """Branch that the commit was taken from."""
