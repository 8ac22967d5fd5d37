"""The processes of a run on this machine, which meet by a file: no port is taken, and none can be in use."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import multiprocessing as torch_processes

from michelangelo import errors

__all__ = ["run"]

_RESULT: Final = "result.pickle"
_STOP: Final = "stop"
"""A file, there once a person asked for the end. Unlike a signal it is not lost on a process that just begins."""
_CONSEQUENCE_SECONDS: Final = 1.0
"""Processes that end within this time of the first may be its consequence, or its cause."""
_LOOK_SECONDS: Final = 0.5
"""Between looks whether a person asked for the end."""


def run(
    count: int,
    uses_gpus: bool,
    function: Callable[..., Any],
    arguments: Sequence[Any],
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Any:
    """`function(*arguments, should_stop=...)` in `count` processes with a group; what the first one returned.

    They are asked to stop when `should_stop` says so. Ctrl-C in a terminal, or a signal to the whole group, reaches
    them too; who has no handler of Ctrl-C is not ended by the first one, but by the second, and they with it.

    Raises what a process raised, if it is one of ours; LlmError for other ends. All processes have ended then.
    """
    # Loaded once, and not in each process, where they are forked.
    multiprocessing.get_context("forkserver").set_forkserver_preload([function.__module__])
    with tempfile.TemporaryDirectory(prefix="michelangelo-processes-") as folder:
        started = torch_processes.start_processes(  # type: ignore[attr-defined,no-untyped-call]
            _work,
            args=(count, uses_gpus, folder, function, tuple(arguments)),
            nprocs=count,
            join=False,
            # CUDA cannot be used by a process forked from one that has looked for it, as imports may.
            start_method="spawn" if uses_gpus else "forkserver",
        )
        try:
            with _first_interrupt_is_theirs():
                failed = _wait(started.processes, should_stop, Path(folder) / _STOP)
        finally:
            _end(started.processes)
        if failed:
            raise _problem(failed, started.processes, started.error_files, Path(folder))
        return pickle.loads((Path(folder) / _RESULT).read_bytes())  # noqa: S301 - of our own process


def _work(
    rank: int, count: int, uses_gpus: bool, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    if uses_gpus:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    dist.init_process_group(
        "nccl" if uses_gpus else "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count
    )
    try:
        result = function(*arguments, should_stop=lambda: asked.is_set() or (Path(folder) / _STOP).exists())
    except errors.MichelangeloError as e:
        (Path(folder) / f"error-{rank}.pickle").write_bytes(pickle.dumps((type(e), e.message)))
        raise
    if rank == 0:
        (Path(folder) / _RESULT).write_bytes(pickle.dumps(result))
    dist.destroy_process_group()


def _end_with_parent() -> None:
    """A program that is killed cannot end its processes, and those would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


def _wait(processes: Sequence[Any], should_stop: Callable[[], bool], stop: Path) -> list[int]:
    """Until all have ended well, or some have not: their ranks, as far as they ended at about the same time."""
    running = {process.sentinel: rank for rank, process in enumerate(processes)}
    failed: list[int] = []
    is_told = False
    while running:
        ready = multiprocessing.connection.wait(list(running), _CONSEQUENCE_SECONDS if failed else _LOOK_SECONDS)
        if failed and not ready:
            break
        if not is_told and should_stop():
            is_told = True
            stop.touch()
        for sentinel in ready:
            rank = running.pop(sentinel)
            processes[rank].join()
            if processes[rank].exitcode:
                failed.append(rank)
    return failed


@contextlib.contextmanager
def _first_interrupt_is_theirs() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or before is not signal.default_int_handler:  # the caller's tells `should_stop`
        yield
        return

    def take(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)  # the second one is for this process

    signal.signal(signal.SIGINT, take)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(processes: Sequence[Any]) -> None:
    """At once: one that waits for the others does not hear a signal that asks."""
    for process in processes:
        if process.is_alive():
            process.kill()
    for process in processes:
        process.join()


def _problem(
    failed: Sequence[int], processes: Sequence[Any], traces: Sequence[str], folder: Path
) -> errors.MichelangeloError:
    """Of several that failed, the cause: one of our errors, else one that was killed, else the first exception."""
    ours = sorted(folder.glob("error-*.pickle"), key=lambda path: path.stat().st_mtime_ns)
    if ours:
        kind, message = pickle.loads(ours[0].read_bytes())  # noqa: S301 - of our own process
        error: errors.MichelangeloError = kind(message)
        return error
    for rank in failed:
        if (code := processes[rank].exitcode) < 0:
            return errors.LlmError(
                f"worker {rank} of {len(processes)} was ended by {_signal_name(-code)}, and the others with it; with "
                "SIGKILL, the machine may have run out of memory. Start the run again to go on from its checkpoint"
            )
    rank = failed[0]
    said = f"ended with exit code {processes[rank].exitcode}"
    with contextlib.suppress(OSError, pickle.UnpicklingError, EOFError):
        trace = str(pickle.loads(Path(traces[rank]).read_bytes())).strip()  # noqa: S301 - of our own process
        said = f"failed: {trace.splitlines()[-1]}\n{trace}"
    return errors.LlmError(f"worker {rank} of {len(processes)} {said}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
