"""Whether a process that has imported the user's module may be forked, so that attempts find it imported.

Threads do not exist after a fork, what they held locked stays locked, and some libraries refuse or crash. A random
generator that was seeded would be reseeded by the fork. Each of these means: import the module after the fork instead.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

__all__ = ["FORK_UNSAFE_MODULES", "RandomState", "reason_not_to_fork"]

FORK_UNSAFE_MODULES = frozenset(
    {
        "cupy",
        "cudf",
        "deepspeed",
        "grpc",
        "jax",
        "jaxlib",
        "mlx",
        "numba.cuda",
        "pycuda",
        "pyspark",
        "ray",
        "tensorflow",
        "tensorrt",
        "torch",
        "vllm",
        "xgboost",
    }
)
"""Libraries with state that does not survive a fork: devices, thread pools, connections."""


class RandomState:
    """The state of the random generators, to see whether an import has touched them."""

    def __init__(self) -> None:
        self._before = _random_state()

    def is_touched(self) -> bool:
        return bool(_random_state() != self._before)


def reason_not_to_fork(random_state: RandomState) -> str:
    """Why this process should not be forked now, after an import; empty: it may be."""
    unsafe = sorted(FORK_UNSAFE_MODULES & sys.modules.keys())
    if unsafe:
        return f"it loads {', '.join(unsafe)}"
    if _thread_count() > 1:
        # Some libraries (OpenBLAS below numpy) stop their threads before every fork and start them again when needed.
        # Then this fork, whose child does nothing, leaves us single-threaded, and so will every later one.
        _fork_and_forget()
        if _thread_count() > 1:
            return "it starts threads"
    if random_state.is_touched():
        return "it seeds or uses the random generator, which a fork would seed anew"
    return ""


def _thread_count() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return threading.active_count()


def _fork_and_forget() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _random_state() -> Any:
    random = sys.modules.get("random")
    return None if random is None else random.getstate()
