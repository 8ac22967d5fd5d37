"""Starting the processes of a run: some on this machine, or one per GPU of a Ray cluster.

Each calls the same function; what the first one returns is the result, and the error of the first that fails is that of
the run.
It knows nothing of training.
"""

from __future__ import annotations

import pickle
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeAlias, TypeVar, cast

import torch
import torch.distributed as dist
from torch import multiprocessing

from michelangelo import errors
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.parallel import on_ray

__all__ = ["Entry", "launch"]

T = TypeVar("T")
Entry: TypeAlias = Callable[..., T]
"""Called as `entry(config, display, should_stop=…)` in each process; importable by name."""
_RESULT: Final = "result"
_ERROR: Final = "error"


def launch(config: FinetuneConfig, entry: Entry[T], display: Any) -> T:
    """The first process's result. Raises what a process raised, SettingsError, LlmError when one died."""
    launcher = config.parallel.launcher
    if launcher == "ray" or (launcher == "auto" and config.parallel.ray_address):
        return on_ray.launch(config, entry, display)
    if launcher == "none":
        return cast(T, entry(config, display))
    return _launch_here(config, entry, display)


def _launch_here(config: FinetuneConfig, entry: Entry[T], display: Any) -> T:
    workers = config.parallel.num_workers
    on_gpu = _on_gpu(config)
    if on_gpu and workers > torch.cuda.device_count():
        raise errors.SettingsError(
            f"parallel.num_workers {workers}: this machine has {torch.cuda.device_count()} GPUs; "
            "use launcher: ray for more"
        )
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        arguments = (workers, on_gpu, folder, config, entry, display)
        started = multiprocessing.start_processes(_run, arguments, nprocs=workers, join=False, start_method="spawn")
        try:
            with _first_interrupt_is_theirs():
                while not started.join():
                    pass
        except multiprocessing.ProcessException as e:
            raise _error_of(Path(folder), e) from e
        return cast(T, pickle.loads((Path(folder) / _RESULT).read_bytes()))  # noqa: S301 - written by our own process


def _run(
    rank: int, workers: int, on_gpu: bool, folder: str, config: FinetuneConfig, entry: Entry[Any], display: Any
) -> None:
    """In a new process."""
    asked = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: asked.set())
    if on_gpu:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=workers
    )
    try:
        result = entry(config, display, should_stop=asked.is_set)
    except errors.MichelangeloError as e:
        (Path(folder) / f"{_ERROR}-{rank}").write_bytes(pickle.dumps((type(e), e.message)))
        raise
    if rank == 0:
        (Path(folder) / _RESULT).write_bytes(pickle.dumps(result))
    dist.destroy_process_group()


def _on_gpu(config: FinetuneConfig) -> bool:
    return config.training.device != "cpu" and torch.cuda.is_available()


def _error_of(folder: Path, ended: multiprocessing.ProcessException) -> errors.MichelangeloError:
    for path in sorted(folder.glob(f"{_ERROR}-*")):
        kind, message = pickle.loads(path.read_bytes())  # noqa: S301 - written by our own process
        return cast(errors.MichelangeloError, kind(message))
    last = str(ended).strip().splitlines()[-1]
    return errors.LlmError(f"worker {ended.error_index} of the run ended unexpectedly: {last}")


class _first_interrupt_is_theirs:
    """Ctrl-C reaches the workers too, which end after their step; a second one ends at once."""

    def __enter__(self) -> None:
        self._asked = False
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._before = signal.signal(signal.SIGINT, self._take)

    def __exit__(self, *_: object) -> None:
        if self._is_main:
            signal.signal(signal.SIGINT, self._before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
