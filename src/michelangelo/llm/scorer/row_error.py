"""One row that cannot be scored: recorded with its reason, and never the end of a job."""

from __future__ import annotations

from michelangelo import errors

__all__ = ["RowError"]


class RowError(errors.ScoringError):
    """The message is the reason, without the place."""
