"""What the processes of a run tell each other about checkpoints: small objects over gloo.

Its own group, because a thread that commits a checkpoint must not mix with the collectives of a training step. It is
used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch.distributed as dist

from michelangelo import errors

__all__ = ["Processes"]

T = TypeVar("T")

_TIMEOUT: Final = timedelta(hours=6)
"""The slowest upload of one process that the others wait for."""


class Processes:
    """Every process calls the same methods in the same order. With one process nothing is sent."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank = rank
        self.world_size = world_size
        self.is_first = rank == 0
        self._group = dist.new_group(backend="gloo", timeout=_TIMEOUT) if world_size > 1 else None

    def gather(self, value: T) -> list[T]:
        """The values of all, in the order of their ranks; empty but in the first process."""
        if self._group is None:
            return [value]
        found: list[Any] | None = [None] * self.world_size if self.is_first else None
        dist.gather_object(value, found, dst=0, group=self._group)
        return found or []

    def scatter(self, values: Sequence[T]) -> T:
        """One of the first process's values for each."""
        if self._group is None:
            return values[0]
        received: list[Any] = [None]
        dist.scatter_object_list(received, list(values) if self.is_first else None, src=0, group=self._group)
        value: T = received[0]
        return value

    def broadcast(self, value: T) -> T:
        """The first process's value."""
        return self.scatter([value] * self.world_size)

    def together(self, part: Callable[[], T]) -> T:
        """Every process does its part; if one fails, all raise its CheckpointError, and none goes on alone."""
        result, problem = None, ""
        try:
            result = part()
        except errors.CheckpointError as e:
            problem = e.message
        except (OSError, RuntimeError, ValueError, KeyError) as e:
            problem = f"{type(e).__name__}: {e}"
        problems = self.broadcast([one for one in self.gather(problem) if one])
        if problems:
            raise errors.CheckpointError(problems[0])
        assert result is not None or not problem
        return result  # type: ignore[return-value]

    def first(self, part: Callable[[], T]) -> T:
        """The first process does it, and all get the result or raise its CheckpointError."""
        return self.broadcast(self.together(part if self.is_first else lambda: None))  # type: ignore[return-value]

    def close(self) -> None:
        if self._group is not None and dist.is_initialized():
            dist.destroy_process_group(self._group)
        self._group = None
