"""Whether a process that has imported the user's module may be forked, so that attempts find it imported.

An attempt must not see a difference to a fresh process. Threads do not exist after a fork, and what they held locked
stays locked; some libraries refuse or crash; random generators made before would repeat themselves in every attempt.
Each of these means: import the module after the fork instead.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["FORK_UNSAFE_MODULES", "ImportWatch", "reseed"]

FORK_UNSAFE_MODULES = frozenset(
    {
        "cudf",
        "cupy",
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

_GENERATORS = {("random", "Random"), ("numpy.random._generator", "Generator"), ("numpy.random.mtrand", "RandomState")}
_LIBRARY_FOLDERS = (os.path.dirname(os.path.abspath(os.__file__)) + os.sep, "site-packages", "dist-packages")


class ImportWatch:
    """Made before an import; tells afterwards what it did to the process."""

    def __init__(self) -> None:
        self._modules = set(sys.modules)
        self._random_state = random.getstate()

    def reason_not_to_fork(self) -> str:
        """Why this process should not be forked after the import, as the end of a sentence; empty: it may be."""
        unsafe = sorted(FORK_UNSAFE_MODULES & sys.modules.keys())
        if unsafe:
            return f"it loads {', '.join(unsafe)}"
        if _has_child():
            return "it starts a process"
        if _thread_count() > 1:
            # Some libraries (OpenBLAS below numpy) stop their threads before every fork and start them again when
            # needed. Then this fork, whose child does nothing, leaves us alone, and so will every later one.
            _fork_and_forget()
            if _thread_count() > 1:
                return "it starts threads"
        if random.getstate() != self._random_state:
            return "it seeds or uses the random generator"
        holder = next((name for name, module in self._own_modules() if _holds_generator(module)), "")
        return f"{holder} holds a random generator" if holder else ""

    def _own_modules(self) -> Iterator[tuple[str, ModuleType]]:
        """The modules of the user's own that the import loaded."""
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            if name not in self._modules and file and not any(folder in file for folder in _LIBRARY_FOLDERS):
                yield name, module


def reseed() -> None:
    """In a new child: what a fresh process would have drawn anew. Python's own generator does so by itself."""
    mtrand: Any = sys.modules.get("numpy.random.mtrand")
    # A generator that the user's import has seeded has no seed sequence, and must be the same in each process.
    if mtrand is not None and getattr(mtrand._rand._bit_generator, "seed_seq", None) is not None:
        mtrand.seed()


def _holds_generator(module: ModuleType) -> bool:
    return any((type(value).__module__, type(value).__name__) in _GENERATORS for value in vars(module).values())


def _has_child() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


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
