"""Who did something: a part of several kinds."""

from __future__ import annotations

from michelangelo.meta.document import Document

__all__ = ["UserInfo"]


class UserInfo(Document):
    """A person or a service."""

    name: str | None = None
    """Name of the user."""
    proxy_user: str | None = None
    """Account in whose name the user's work runs, such as a service account."""
