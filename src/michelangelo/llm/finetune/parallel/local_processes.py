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
_GRACE_SECONDS: Final = 5.0
"""For a process that is told to end; then it is killed."""
_CONSEQUENCE_SECONDS: Final = 1.0
"""Processes that end within this time of the first may be its consequence, or its cause."""


def run(count: int, uses_gpus: bool, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """`function(*arguments, should_stop=...)` in `count` processes with a group; what the first one returned.

    Ctrl-C reaches them too, and asks them to stop; a second one ends them at once.

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
                failed = _wait(started.processes)
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
    signal.signal(signal.SIGINT, lambda *_: asked.set())
    if uses_gpus:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    dist.init_process_group(
        "nccl" if uses_gpus else "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count
    )
    try:
        result = function(*arguments, should_stop=asked.is_set)
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


def _wait(processes: Sequence[Any]) -> list[int]:
    """Until all have ended well, or some have not: their ranks, as far as they ended at about the same time."""
    running = {process.sentinel: rank for rank, process in enumerate(processes)}
    failed: list[int] = []
    while running:
        ready = multiprocessing.connection.wait(list(running), timeout=_CONSEQUENCE_SECONDS if failed else None)
        if not ready:
            break
        for sentinel in ready:
            rank = running.pop(sentinel)
            processes[rank].join()
            if processes[rank].exitcode:
                failed.append(rank)
    return failed


@contextlib.contextmanager
def _first_interrupt_is_theirs() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def take(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)  # the second one is for this process

    signal.signal(signal.SIGINT, take)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(processes: Sequence[Any]) -> None:
    for process in processes:
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join(_GRACE_SECONDS)
        if process.is_alive():
            process.kill()
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
