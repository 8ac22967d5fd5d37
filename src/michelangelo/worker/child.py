"""The process of one attempt, from the fork (or the start of the interpreter) to its exit.

It becomes the leader of a process group, sends its output into the log's pipe, runs the attempt through worker/call.py
and writes the outcome into the result's pipe. It never returns to the zygote's loop.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import NoReturn

from michelangelo import errors
from michelangelo.executors import wire
from michelangelo.executors.base import Attempt, AttemptState, Outcome
from michelangelo.uniflow import source
from michelangelo.worker import failure, forksafety, spark

__all__ = ["adopt_orphans", "run", "set_environment"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_EXIT_BROKEN = 70
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def run(
    attempt: Attempt,
    call: Callable[[Attempt], Outcome],
    *,
    result_fd: int,
    log_fd: int,
    parent: int,
    prelude: bytes = b"",
) -> NoReturn:
    """Run `attempt` in this process, which has just been made for it, and exit.

    `prelude` is what the import of the user's module has printed before the fork; `parent` must still live.
    """
    code = _EXIT_BROKEN
    try:
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        os.close(log_fd)
        # Should it crash, then its log says in which line: only the interpreter can tell that, and only now.
        faulthandler.enable(2)
        _become_leader(parent)
        if prelude:
            os.write(1, prelude)
        set_environment(attempt.environment)
        forksafety.reseed()
        _report(result_fd, _call(attempt, call))
        code = 0
        _run_exit_hooks()
    except BaseException as e:  # noqa: BLE001 - nothing may get back into the zygote's loop
        with contextlib.suppress(BaseException):
            os.write(2, f"{failure.from_exception(e)['traceback']}\n".encode())
    finally:
        _flush()
        os._exit(code)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none gets away (Linux)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def set_environment(variables: Mapping[str, str]) -> None:
    os.environ.update(variables)


def _become_leader(parent: int) -> None:
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(_EXIT_BROKEN)  # it died before the kernel knew that we should die with it
    adopt_orphans()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _call(attempt: Attempt, call: Callable[[Attempt], Outcome]) -> Outcome:
    if "spark" in attempt.config:
        try:
            folder = str(attempt.context.get("scratch", ""))
            set_environment(spark.variables(attempt.config["spark"], os.environ, folder))
        except errors.ExecutorError as e:
            return Outcome(id=attempt.id, state=AttemptState.FAILED, error=failure.from_exception(e))
    # A class that the user's script defines belongs to `__main__` there; here that is the module of the same file.
    with contextlib.suppress(Exception):  # the call reports what is wrong with the file
        sys.modules["__main__"] = source.load_file(attempt.target.path, attempt.target.module)
    # Only now: the module is imported where the run was started, also when that happened before the fork.
    if attempt.working_directory:
        try:
            os.chdir(attempt.working_directory)
        except OSError as e:
            error = errors.ExecutorError(
                f"the working directory {attempt.working_directory} of {attempt.target.qualname} cannot be used: "
                f"{e.strerror}; make it, or correct the task's working_directory"
            )
            return Outcome(id=attempt.id, state=AttemptState.FAILED, error=failure.from_exception(error))
    return call(attempt)


def _report(result_fd: int, outcome: Outcome) -> None:
    _flush()
    data = memoryview(wire.frame(wire.outcome_to_json(outcome)))
    while data:
        data = data[os.write(result_fd, data) :]


def _run_exit_hooks() -> None:
    """What the interpreter does at its end, without taking it apart: threads that are no daemons, then atexit."""
    # Private, but the only way to have pools end their threads as at a normal exit.
    shutdown = getattr(threading, "_shutdown", None)
    if shutdown is not None:
        shutdown()
    atexit._run_exitfuncs()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
